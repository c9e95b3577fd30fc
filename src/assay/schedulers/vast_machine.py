"""The shell scripts that run on a rented machine; open it when one is not given back, or a job there gets lost.

onstart    what the service starts with the machine. It sets the timer that gives the machine back before anything else,
           then waits for the job to be sent, runs it, and waits for the results to be fetched
job        what is sent: unpacks the repository and the run, runs the command, and lays out what is to be fetched

    /assay/in         what was sent: job.sh, repository.bundle, files.tar; `ready`: sizes and names of these
    /assay/control    `end`: somebody wants the end of the job
    /assay/out        what is fetched: run/, fetch/, refs.bundle; `files`: sizes and names of these; `code` comes last,
                      and only if all of it is there

Both run on any computer if ASSAY_DISK names a folder that stands for the machine's root.
"""

import re
import shlex
import sys
from pathlib import PurePath

from assay.errors import ConfigError
from assay.progress import UNFINISHED
from assay.schedulers import Job
from assay.schedulers.config import VastConfig

ROOT = "/assay"
LONGEST = 4000
"""In bytes: the service takes no onstart of more than some 4 kB."""
RESERVE_S = 300
"""How long before its machine goes back a job is asked to stop; a tenth of a short time."""
REFS = "refs/exps/"
"""Where DVC keeps experiments."""

# The key is in the machine's environment only: neither in this text nor in the arguments of a process.
_ONSTART = r"""#!/bin/bash
# assay: gives this machine back at ASSAY_END (s since 1970), or ASSAY_SECONDS after its first start.
base="${ASSAY_DISK:-}/assay"
mkdir -p "$base/in" "$base/out" "$base/control"
export CONTAINER_ID="${CONTAINER_ID:-${VAST_CONTAINERLABEL#C.}}" VAST_URL="${VAST_URL:-https://console.vast.ai}"
by_python() {
  "$1" -c '
import os, sys, urllib.request as web
method, body = ("PUT", b"{\"state\": \"stopped\"}") if sys.argv[1] == "stop" else ("DELETE", b"{}")
where = "%s/api/v0/instances/%s/" % (os.environ["VAST_URL"], os.environ["CONTAINER_ID"])
head = {"Authorization": "Bearer " + os.environ["CONTAINER_API_KEY"], "Content-Type": "application/json"}
web.urlopen(web.Request(where, body, head, method=method), timeout=60)' "$2"
}
by_curl() {
  if [ "$1" = stop ]; then set -- PUT '{"state": "stopped"}'; else set -- DELETE '{}'; fi
  printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$CONTAINER_API_KEY" |
    curl -fsS -m 60 -H @- -X "$1" -d "$2" "$VAST_URL/api/v0/instances/$CONTAINER_ID/"
}
say() { by_python @PYTHON@ "$1" || by_python python3 "$1" || by_curl "$1"; }
give_back() {  # again and again until this machine is off; one that may not destroy itself can stop at least
  say "$1"; sleep 30
  while :; do say "$1" || say stop; sleep 30; done
}
all_is_here() {
  [ -s "$base/in/ready" ] || return 1
  while read -r size name; do
    [ "$(stat -c %s "$base/in/$name" 2>/dev/null)" = "$size" ] || return 1
  done <"$base/in/ready"
}
now=$(date +%s)
left=$((ASSAY_END - now))
[ "$left" -le "$ASSAY_SECONDS" ] || left=$ASSAY_SECONDS
[ -s "$base/end" ] || echo "$((now + left))" >"$base/end"
read -r end <"$base/end" || end=$((now + left))  # the disk may be full
(
  until [ "$(date +%s)" -ge "$end" ]; do sleep 1; done
  give_back @UNCLAIMED@
) </dev/null >/dev/null 2>&1 &
(
  until all_is_here || [ "$SECONDS" -ge @LOADING@ ]; do sleep 0.2; done
  all_is_here || give_back destroy
  [ -e "$base/out/code" ] || bash "$base/in/job.sh"
  sleep @KEEP@
  give_back @UNCLAIMED@
) </dev/null >>"$base/onstart.log" 2>&1 &
"""

_JOB = r"""unset CONTAINER_API_KEY  # a job, its records and its log have no use for it
disk="${ASSAY_DISK:-}" base="${ASSAY_DISK:-}/assay"
folder="$disk"@FOLDER@ log="$disk"@LOG@
run="$(dirname "$log")" out="$base/out"
end="$(cat "$base/end")" started="$(date +%s)"
reserve=$(((end - started) / 10))
[ "$reserve" -le @RESERVE@ ] || reserve=@RESERVE@

unpack() {
  mkdir -p "$folder" "$run" || return 1
  if [ -e "$base/in/repository.bundle" ] && { [ -e "$base/cloning" ] || [ ! -e "$folder/.git" ]; }; then
    touch "$base/cloning" && rm -rf "$folder/.git" &&  # a clone that a restart has cut off is begun anew
      git init --quiet "$folder" &&
      git -C "$folder" fetch --quiet "$base/in/repository.bundle" HEAD:refs/heads/assay &&
      git -C "$folder" checkout --quiet --force --detach assay || return 1
  fi
  tar -xf "$base/in/files.tar" -C "${disk:-/}" && touch "$base/unpacked"
}

lay_out() {  # links where it is one disk: no room is taken, and a file that is replaced meanwhile is not torn
  rm -rf "$base/next"
  cp -al "$run" "$base/next" 2>/dev/null || { rm -rf "$base/next"; cp -a "$run" "$base/next"; } || return 1
  rm -rf "$out/run" && mv "$base/next" "$out/run" && list
}

list() {
  (cd "$out" && find . -type f ! -path ./started ! -path ./files ! -path ./code -printf '%s %P\0') >"$base/files" &&
    mv "$base/files" "$out/files"
}

must_end() { [ -e "$base/control/end" ] || [ "$(date +%s)" -ge "$((end - reserve))" ]; }

code=1 tries=0
if [ -e "$base/unpacked" ] || unpack >"$base/unpack.log" 2>&1; then code=@UNFINISHED@; fi
mkdir -p "$run"
exec >>"$log" 2>&1  # not before: the log of earlier attempts was unpacked
[ "$code" -eq @UNFINISHED@ ] || cat "$base/unpack.log"
touch "$out/started"
head -c 10000000 /dev/zero >"$base/room"  # a run that fills the disk can be fetched nevertheless
while [ "$code" -eq @UNFINISHED@ ] && [ "$tries" -lt @ATTEMPTS@ ] && ! must_end; do
  tries=$((tries + 1)) asked="" seconds=$SECONDS
  (cd "$folder" && exec @COMMAND@) &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if [ -z "$asked" ] && must_end; then asked=yes; kill -TERM "$child"; fi
    if [ "$((SECONDS - seconds))" -ge @PULL@ ]; then seconds=$SECONDS; lay_out; fi
  done
  wait "$child"
  code=$?
done
rm -rf "$base/room" "$out/fetch"
mkdir "$out/fetch" && lay_out || exit 1  # without a code what is laid out is not taken for the end
take='cp -pl --parents -t "$0" "$@" 2>/dev/null || cp -p --parents -t "$0" "$@"'
for path in @FETCH@; do
  cd "$folder" || continue
  find "./$path" -type f -cnewer "$base/unpacked" -print0 | xargs -0r sh -c "$take" "$out/fetch" || exit 1
done 2>/dev/null
refs="$out/refs.bundle"
git -C "$folder" bundle create --quiet "$refs" --glob=@REFS@ --not assay 2>/dev/null || rm -f "$refs"
list && echo "$code" >"$base/code" && mv "$base/code" "$out/code"
"""


def onstart(config: VastConfig) -> str:
    """What the service is given to start.

    Raises:
        ConfigError: the service would not take so much.
    """
    told = {
        "PYTHON": shlex.quote(config.python),
        "UNCLAIMED": config.unclaimed,
        "LOADING": f"{config.loading:.0f}",
        "KEEP": f"{config.keep:g}",
    }
    text = _filled(_ONSTART, told)
    size = len(text.encode())
    if size > LONGEST:
        given = f"got a path that makes the script which the machine starts {size} bytes long"
        raise ConfigError(f"vast.python: {given}; allowed: {LONGEST}; name a shorter path, or a link in the image")
    return text


def job_script(job: Job, config: VastConfig) -> str:
    """What is sent to the machine. This environment's interpreter is not there: the image's stands for it."""
    python, *arguments = job.command
    command = [config.python if python == sys.executable else python, *arguments]
    told = {
        "FOLDER": shlex.quote(str(job.folder)),
        "LOG": shlex.quote(str(job.log)),
        "RESERVE": str(RESERVE_S),
        "UNFINISHED": str(UNFINISHED),
        "ATTEMPTS": str(job.attempts),
        "COMMAND": shlex.join(command),
        "PULL": f"{config.pull:.0f}",
        "FETCH": shlex.join(str(PurePath(path)) for path in config.fetch),
        "REFS": REFS,
    }
    return _filled(_JOB, told)


def _filled(text: str, told: dict[str, str]) -> str:
    """Each @NAME@ once replaced; what is put in is not looked at again."""
    return re.sub(r"@([A-Z]+)@", lambda found: told[found[1]], text)


def create_words(config: VastConfig, label: str, end: str, seconds: str) -> list[str]:
    """The arguments that rent a machine, after the offer. end: in s since 1970; seconds: the longest from its start."""
    return [
        *("--image", str(config.image), "--disk", f"{config.disk:g}", "--label", label),
        *("--ssh", "--direct", "--cancel-unavail"),
        *(["--bid_price", f"{config.bid:g}"] if config.bid else []),
        *(word for option in config.options for word in option.split(" ", 1)),
        *("--env", f"-e ASSAY_END={end} -e ASSAY_SECONDS={seconds}", "--onstart-cmd", onstart(config)),
    ]
