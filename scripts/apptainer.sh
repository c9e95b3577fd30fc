#!/usr/bin/env bash
# Makes the SIF of the last commit, in the way that works here, and says which: from the finished Docker image where there
# is one of this commit, else from the Dockerfile's base by scripts/install.sh.
#
#   scripts/apptainer.sh [SIF]          default assay.sif
#   scripts/apptainer.sh --prepare DIR  only put the files into DIR and print the options of `apptainer build`
#   TORCH=cpu|cuda                      default cpu
#   IMAGE=KIND:NAME                     the finished image: docker-daemon:NAME, docker-archive:FILE, docker:REGISTRY/NAME
#   BASE_IMAGE=[KIND:]NAME              another base than the Dockerfile's
#   WHEELHOUSE=DIR                      wheels; default .wheelhouse if it is there
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
torch=${TORCH:-cpu}
commit=$(git rev-parse HEAD)
lock=$(git archive HEAD requirements | tar -xO | sha256sum | cut -d ' ' -f 1)

say() { printf 'apptainer: %s\n' "$*" >&2; }
refuse() { say "$@" && exit 2; }

has_kind() { [[ $1 =~ ^(docker|docker-daemon|docker-archive|oci|oci-archive|oras|library|localimage): ]]; }

# Sets image to the finished image, or leaves it empty and says why.
find_image() {
  image=${IMAGE:-} digest=
  local tag=assay:$torch told
  if [[ -n $image ]]; then
    has_kind "$image" || refuse "IMAGE: got $image; allowed: KIND:NAME, e.g. docker-archive:/images/assay.tar"
    find_digest "${image#*:}"
  elif ! command -v docker >/dev/null; then
    say "no Docker here"
  elif ! told=$(docker image inspect --format '{{.Id}} {{index .Config.Labels "org.opencontainers.image.revision"}}' \
    "$tag" 2>/dev/null); then
    say "Docker has no image $tag (make docker makes it), or does not answer"
  elif [[ ${told#* } != "$commit" ]]; then
    say "Docker's image $tag is of commit ${told#* }, not of $commit"
  else
    image=docker-daemon:$tag digest=${told% *}
  fi
}

# The digest of the image's configuration, which covers all it holds; a registry's reference may carry one.
find_digest() {
  case $image in
    docker-archive:*)
      digest=sha256:$(tar -xOf "$1" manifest.json | grep -o '"Config":"[^"]*' | grep -o '[0-9a-f]\{64\}')
      ;;
    docker-daemon:*) digest=$(docker image inspect --format '{{.Id}}' "$1") ;;
    *@sha256:*) digest=${image##*@} ;;
  esac
}

# Apptainer asks for every capability. Root that lacks one, as in many virtual machines, has it in a user namespace.
find_root() {
  local every
  [[ $EUID == 0 ]] || return 0
  every=$(printf '%016x' $(((1 << ($(</proc/sys/kernel/cap_last_cap) + 1)) - 1)))
  [[ $(</proc/self/status) != *CapEff:*"$every"*CapBnd:* ]] || return 0
  if grep -qs ^root: /etc/subuid && grep -qs ^root: /etc/subgid; then
    options+=(--fakeroot)
  else
    say "root lacks capabilities here; if that ends it: echo root:100000:65536 | tee -a /etc/subuid /etc/subgid"
  fi
}

prepare() {
  # Whatever the umask and git's own: modes are a part of the image, and everybody must be able to read it.
  git -c tar.umask=0022 archive HEAD apptainer.def pyproject.toml requirements scripts src |
    (umask 022 && tar -x -C "$1")
  local wheelhouse=${WHEELHOUSE:-.wheelhouse} base
  options=(--build-arg "TORCH=$torch" --build-arg "COMMIT=$commit" --build-arg "LOCK=sha256:$lock")
  find_root
  # The default, 9, takes several times as long for an image that is a few per cent smaller; any Apptainer reads both.
  if [[ -n $program && $("$program" build --help 2>&1) == *--mksquashfs-args* ]]; then
    options+=(--mksquashfs-args "-Xcompression-level 4")
  fi
  if [[ -n $image ]]; then
    say "from the finished image $image"
    options+=(--build-arg "DIGEST=$digest")
  else
    base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)}
    [[ -n $base ]] || refuse "Dockerfile: got no line ARG BASE_IMAGE=NAME; allowed: one, or BASE_IMAGE=NAME; give one"
    image=$base
    has_kind "$image" || image=docker:$image
    if [[ -d $wheelhouse ]]; then
      cp -rlT -- "$wheelhouse" "$1/.wheelhouse" 2>/dev/null || cp -rT -- "$wheelhouse" "$1/.wheelhouse"
      options+=(--build-arg "WHEELHOUSE=.wheelhouse")
      say "from $image by scripts/install.sh and the lock, out of $wheelhouse, without a network"
    else
      [[ -z ${WHEELHOUSE:-} ]] || refuse "WHEELHOUSE: got $WHEELHOUSE, which is no folder; do: make wheelhouse"
      say "from $image by scripts/install.sh and the lock, from the network"
    fi
  fi
  local name=${image#*:}
  [[ $image != *-archive:* && $image != localimage:* ]] || name=$(realpath -- "$name")
  options+=(--build-arg "BOOTSTRAP=${image%%:*}" --build-arg "FROM=${name#//}")
}

[[ $torch == cpu || $torch == cuda ]] || refuse "TORCH: got $torch; allowed: cpu, cuda"
program=$(command -v apptainer || command -v singularity || true)
find_image
if [[ ${1:-} == --prepare ]]; then
  prepare "${2:?}"
  printf '%s\n' "${options[@]}"
  exit
fi
sif=$(realpath -m -- "${1:-assay.sif}")
fresh=${sif%.sif}.new.sif
[[ -n $program ]] || refuse "got no such program; install it, or: module load apptainer"
context=$(mktemp -d)
trap 'rm -rf -- "$context" "$fresh"' EXIT
prepare "$context"
mkdir -p -- "$(dirname -- "$sif")"
(cd -- "$context" && "$program" build --force "${options[@]}" "$fresh" apptainer.def)
mv -- "$fresh" "$sif" # a build that fails leaves the image that jobs may be using
say "$sif ($(du -h -- "$sif" | cut -f 1))"
