"""What container programs say when nothing starts, and what helps; open it to teach a new one."""

import re

APPTAINER = (
    (
        r"user ?namespace|unprivileged_userns|max_user_namespaces",
        "this machine forbids user namespaces; its administrator can allow them: "
        "sysctl -w user.max_user_namespaces=15000 (on Debian and Ubuntu also kernel.unprivileged_userns_clone=1), "
        "or install Apptainer's setuid part",
    ),
    (
        r"GLIBC_[\d.]+' not found",
        "the image's C library is older than the host's GPU libraries; use a newer BASE_IMAGE",
    ),
    (
        r"forward compatibility|driver version is insufficient|driver on your system is too old",
        "the image's CUDA is newer than this node's driver; ask for a newer driver, or build with an older torch",
    ),
    (r"/dev/fuse|fusermount|squashfuse", "an image file is mounted through FUSE; install fuse3, or allow /dev/fuse"),
    (r"network requires root|CNI|netns", "this machine gives users no empty network; set container.network: true"),
    (
        r"Requesting capability set",
        "root lacks capabilities on this machine; do: apptainer config global --set 'root default capabilities' no",
    ),
    (r"no space left on device", "the node's disk is full; set TMPDIR to a folder on another one"),
    (
        r"not a valid|image format not recognized|could not open image",
        "the image is damaged; build it again: make apptainer",
    ),
)
"""Words of Apptainer or of the dynamic linker, and what helps."""
DOCKER = (
    (r"bind source path does not exist: (?P<what>.*)", "the daemon's machine has no {what}; make it there"),
    (r"could not select device driver", "the daemon has no GPUs; install nvidia-container-toolkit on its machine"),
    (r"docker-init", "the daemon's machine has no docker-init; install tini, or Docker's own package"),
    (r"(?P<what>no space left on device)", "{what}; make room on the daemon's machine: docker system prune"),
    (
        r"executable file not found|no such file or directory",
        "the image has no such program; build it with make docker",
    ),
)
"""Words of a Docker daemon, and what helps."""


def explain(said: str) -> str:
    """One line for what Apptainer said: what helps, and its own words."""
    words = " ".join(line.strip() for line in said.splitlines() if "INFO:" not in line)[-600:]
    fix = next((fix for pattern, fix in APPTAINER if re.search(pattern, words)), "correct that, then submit again")
    return f"apptainer: {fix} (it said: {words})"


def explain_daemon(image: str, said: str) -> str | None:
    """One line for what a Docker daemon said; None if its words are not known."""
    for pattern, fix in DOCKER:
        if found := re.search(pattern, said):
            return f"docker: {image}: {fix.format(**found.groupdict())} (it said: {said})"
    return None
