"""What is asked of vast.ai, through its own command-line client `vastai`; open it when a version of that speaks anew.

Two traps of that client, read from its source (github.com/vast-ai/vast-cli, 2026): it ends with 0 after most errors,
so an answer counts only if it is what was asked for; and the key is in the address that its errors may quote.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import SchedulerError
from assay.schedulers.config import ResourcesConfig, VastConfig

WITHIN_S = 180.0
"""The client itself tries three times, for up to 120 s each."""
COPY_WITHIN_S = 3600.0
SHOWN = 300
SECRET = re.compile(r"((?:api[_-]key|token|[Bb]earer)[\"'=: ]+)[^\s&'\",)]+|\b[0-9a-fA-F]{32,}\b")
TAKEN = re.compile(r"no_such_ask|not available|already rented|not rentable|error (404|410)|status_code\D+(404|410)")
"""The offer is gone, or somebody bid more: another may do."""
REFUSED = re.compile(r"(status_code\D+|error )4\d\d|unrecognized arguments|cannot be started")
"""Nothing was done."""
HINTS = {
    r"status_code\D+40[13]|log in|Invalid user key": "set the key once: vastai set api-key KEY",
    r"credit|balance": "add credit on the console of vast.ai",
    r"unrecognized arguments|invalid choice": "the client is of another version; update it: pip install -U vastai",
    r"bid": "raise vast.bid",
}
"""Pattern in what the client says -> what to do about it; the first that fits counts."""


class OfferGoneError(SchedulerError):
    """What was to be rented is rented by somebody else, or dearer now."""


class DoubtfulError(SchedulerError):
    """No answer to a request that may have been carried out."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A machine that may be rented. price: dollars an hour, its disk included."""

    id: int
    machine: int
    gpu: str
    price: float


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A rented machine. status: actual_status of the service; wanted: intended_status; price: dollars an hour."""

    id: int
    label: str
    machine: int
    gpu: str
    status: str
    wanted: str
    price: float
    started: float
    message: str


def query(resources: ResourcesConfig, config: VastConfig) -> str:
    """What an offer must be, in the client's words. gpu_name has `_` for a space."""
    told = [
        f"num_gpus={max(resources.gpus, 1)}",
        *([f"gpu_name={re.sub(r'[^A-Za-z0-9._-]+', '_', resources.gpu)}"] if resources.gpu else []),
        f"reliability>={config.reliability:g}",
        f"disk_space>={config.disk:g}",
        f"cpu_cores_effective>={resources.cpus}",
        *([f"cpu_ram>={resources.memory:g}"] if resources.memory else []),
        f"min_bid<={config.bid:g}" if config.bid else f"dph_total<={config.max_price:g}",
    ]
    return " ".join(told)


def search_words(resources: ResourcesConfig, config: VastConfig) -> list[str]:
    """The arguments that look for offers; prices are asked for with the disk that will be used."""
    kind = "bid" if config.bid else "on-demand"
    asked = ["--type", kind, "--storage", f"{config.disk:g}", "--order", "dph_total"]
    return ["search", "offers", query(resources, config), *asked, "--raw"]


class Client:
    """The client by its name. Everything that it says goes through here, and no key leaves here."""

    def __init__(self, program: str) -> None:
        self.program = program

    def offers(self, resources: ResourcesConfig, config: VastConfig) -> list[Offer]:
        """What may be rented for that price, the cheapest first.

        Raises:
            SchedulerError: nobody answers, or the query is refused.
        """
        rows = self._answer(search_words(resources, config), list)
        with self._understood("search offers"):
            found = [_offer(row, config) for row in rows]
        return sorted((each for each in found if each.price <= config.max_price), key=lambda each: each.price)

    def create(self, offer: int, words: list[str]) -> int:
        """Rent a machine; its number.

        Raises:
            OfferGoneError: this one cannot be had any more, and was not rented.
            DoubtfulError: nobody knows whether it was.
            SchedulerError: it was not, and no other would be.
        """
        try:
            answer = self._answer(["create", "instance", str(offer), *words, "--raw"], dict)
            return int(answer["new_contract"])
        except SchedulerError as error:
            if TAKEN.search(str(error)):
                raise OfferGoneError(str(error)) from None
            if REFUSED.search(str(error)):
                raise
            raise DoubtfulError(str(error)) from None
        except (KeyError, ValueError, TypeError):
            raise DoubtfulError(f"{self.program}: create instance {offer}: got no number") from None

    def instances(self) -> list[Instance]:
        """All machines that are paid for now, whoever rented them with this key.

        Raises:
            SchedulerError: nobody answers.
        """
        answer = self._answer(["show", "instances", "--raw"], (list, dict))
        with self._understood("show instances"):
            return [_instance(row) for row in (answer["instances"] if isinstance(answer, dict) else answer)]

    def destroy(self, instance: int) -> None:
        """Give a machine back, with all that is on it; newer clients ask whether one is sure.

        Raises:
            SchedulerError: nobody answers.
        """
        self._run(["destroy", "instance", str(instance), "--raw"], text="y\n")

    def copy(self, source: str, target: str, here: Path) -> None:
        """Bring files there or here: `local:DIR` and `C.NUMBER:DIR`, a `/` at the end of the source means its content.

        Paths on this side are relative to `here`, for the client refuses a colon in one. It runs rsync through ssh, and
        does not say whether that failed: whoever needs to know must look at what came.
        """
        self._run(["copy", source, target], where=here, within=COPY_WITHIN_S)

    @contextmanager
    def _understood(self, words: str) -> Iterator[None]:
        """What the service says otherwise than expected is no answer, rather than the end of who asks."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            told = f"{self.program} {words}: got what cannot be read ({error!r})"
            raise SchedulerError(f"{told}; update the client, or assay; see the console of vast.ai") from None

    def _answer(self, words: list[str], kind: type | tuple[type, ...]) -> Any:
        said, complained = self._run(words)
        try:
            answer = json.loads(said)
        except ValueError:
            raise SchedulerError(self._explained(words, complained or said)) from None
        if not isinstance(answer, kind) or (isinstance(answer, dict) and answer.get("success") is False):
            raise SchedulerError(self._explained(words, complained or said))
        return answer

    def _run(
        self, words: list[str], text: str = "", where: Path | None = None, within: float = WITHIN_S
    ) -> tuple[str, str]:
        """What the client prints, and what it complains about."""
        try:
            done = subprocess.run(
                [self.program, *words],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=within,
                cwd=where,
            )
        except OSError as error:
            raise SchedulerError(absent(self.program, error.strerror)) from None
        except subprocess.TimeoutExpired:
            raise SchedulerError(f"{self.program} {words[0]}: no answer within {within:g} s; wait") from None
        if done.returncode or '"error": true' in done.stderr:
            raise SchedulerError(self._explained(words, done.stderr or done.stdout))
        return done.stdout, done.stderr

    def _explained(self, words: list[str], said: str) -> str:
        """The end of what was said, on one line and without keys, and what to do about it."""
        told = " ".join(clean(said).split())[-SHOWN:] or "no answer"
        fix = next((hint for pattern, hint in HINTS.items() if re.search(pattern, told)), "wait; it is asked again")
        return f"{self.program} {' '.join(words[:2])}: failed ({told}); {fix}"


def absent(program: str, why: str | None = None) -> str:
    """What to do where there is no client."""
    reason = f" ({why})" if why else ""
    fix = "pip install vastai in an environment of its own, then name its program in vast.client of the machine file"
    return f"vast.client: {program} cannot be started{reason}; {fix}, or with assay stop --client"


def clean(text: str) -> str:
    """Without anything that looks like a key."""
    return SECRET.sub(lambda found: f"{found[1] or ''}***", text)


def _offer(row: Mapping[str, Any], config: VastConfig) -> Offer:
    """Of an interruptible one the price is what is bid."""
    price = config.bid if config.bid is not None else float(row["dph_total"])
    return Offer(id=int(row["id"]), machine=int(row["machine_id"]), gpu=str(row["gpu_name"]), price=price)


def _instance(row: Mapping[str, Any]) -> Instance:
    """A field that the service leaves empty while it prepares a machine says so."""
    return Instance(
        id=int(row["id"]),
        label=str(row["label"] or ""),
        machine=int(row["machine_id"]),
        gpu=str(row["gpu_name"]),
        status=str(row["actual_status"] or "provisioning"),
        wanted=str(row["intended_status"]),
        price=float(row["dph_total"] or 0.0),
        started=float(row["start_date"] or 0.0),
        message=str(row.get("status_msg") or ""),
    )
