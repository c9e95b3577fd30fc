#!/usr/bin/env bash
# Fills an image from within; called by Dockerfile and apptainer.def, in the folder /opt/assay, and by nobody else.
#
#   scripts/image.sh install WHEELHOUSE     the environment by scripts/install.sh, from wheels alone where there are some
#   scripts/image.sh seal                   compile the code; write what the image holds to content.txt
#
# Files get one time, and compiled ones do not depend on any, so the same lock gives the same bytes.
set -euo pipefail

readonly opt=/opt/assay
export PYTHONDONTWRITEBYTECODE=1 # what Python compiles by itself, as it starts, holds times
umask 022
cd -- "$opt"

refuse() { printf 'image: %s\n' "$*" >&2 && exit 2; }

# Everybody may read it, whatever the modes of the files that it was given.
#
# 1980 is the first year that a zip file can name. A hash instead of a time: nobody changes a file of an image. Packages
# bring files for other versions of Python too, which do not compile here.
finish() {
  find "$1" -name __pycache__ -prune -exec rm -rf {} +
  PYTHONHASHSEED=0 "$opt/env/bin/python" -m compileall -qq -f -j 0 --invalidation-mode unchecked-hash "$1" || true
  chmod -R u=rwX,go=rX "$1"
  find "$1" -exec touch -h -d '1980-01-01 00:00:00 UTC' {} +
}

install() {
  command -v git >/dev/null || refuse "BASE_IMAGE: has no git; allowed: an image with git and Python 3.11 to 3.13"
  if compgen -G "$1/*.whl" >/dev/null; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=$1
  fi
  touch README.md # the package's description, which no run reads; a change of it is no reason to install anew
  PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 scripts/install.sh "$opt/env"
  finish "$opt/env"
}

# One line for each file: kind, whether it can be executed, digest or target, path. The first lines are the base's part.
seal() {
  finish "$opt/src"
  {
    printf 'python %s\n' "$("$opt/env/bin/python" -c 'import platform; print(platform.python_version(), *platform.libc_ver())')"
    find env src -type l -printf 'l %l %p\n' | LC_ALL=C sort
    find env src -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    find env src -type f -executable -printf 'x %p\n' | LC_ALL=C sort
  } >content.txt
}

case ${1:-} in
  install) install "${2:?}" ;;
  seal) seal ;;
  *) refuse "got ${1:-nothing}; allowed: install, seal" ;;
esac
