"""Taking the newest whole checkpoint: found, verified and loaded by all ranks together, else the one before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.store.errors import StoreError
from stages.store.fields import describe
from stages.store.private_files import make_private_folder
from stages.store.store import Store
from stages.training.checkpoint.exchange import bring
from stages.training.checkpoint.finding import Candidate, Refusal, choose, list_machine, list_store, step_folder
from stages.training.checkpoint.format import INDEX, STATE, CheckpointFile, Index, parse_index
from stages.training.checkpoint.layout import LocalPiece, describe_tensors, local_pieces
from stages.training.checkpoint.machines import Machines
from stages.training.checkpoint.reading import Filler, misfits, needed_files, verified_bytes
from stages.training.parallelism.ranks import Ranks

_FETCHES = 4
"""Files that are fetched from an object store side by side."""


@dataclass
class Found:
    """A checkpoint whose index and state are verified, on all ranks."""

    candidate: Candidate
    folder: Path
    """Of its files on this machine; those that are missing come when it is loaded."""
    index: Index
    state: Any
    """What `Finder.read_state` gave."""

    @property
    def step(self) -> int:
        return self.candidate.manifest.step


@dataclass
class Finder:
    """Goes through a run's checkpoints, newest first. Every rank makes the same calls in the same order.

    Args:
        memory: the run's folder in this machine's memory, if there is one.
        disk: its folder on this machine's disk; with a store on local files, the run's folder there.
        read_state: what the run needs of a checkpoint's state; ValueError: what keeps it from belonging to this run.
    """

    ranks: Ranks
    machines: Machines
    store: Store
    folder: str
    memory: Path | None
    disk: Path
    read_state: Callable[[Mapping[str, Any]], Any]
    refusals: list[Refusal] = field(default_factory=list)
    """What was passed over so far, and why."""
    known: dict[int, float | None] = field(default_factory=dict)
    """Bits per byte by step, of the checkpoints that lie where they do in the end."""

    def __post_init__(self) -> None:
        mine = list_machine(self.memory, self.disk) if self.machines.is_leader else []
        stored = list_store(self.store, self.folder) if self.ranks.rank == 0 and not self.store.is_local else []
        listings = self.ranks.all_gather_json([mine, stored])
        of_rank = self.machines.of_rank
        everything = [(of_rank[rank], entries) for rank, both in enumerate(listings) for entries in both]
        self._candidates, self.refusals, self._old = choose(everything)
        final = "disk" if self.store.is_local else "store"
        known = [found.manifest for found in self._candidates if found.tier == final]
        self.known = {manifest.step: manifest.bits_per_byte for manifest in known}

    def next(self) -> Found | None:
        """The newest whole checkpoint that has not been returned yet, None if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        while self._candidates:
            candidate = self._candidates.pop(0)
            found, reason = self._open(candidate)
            reasons = [Refusal(*item) for item in self.ranks.all_gather_json(reason) if item]
            if not reasons and found is not None:
                return found
            self.refusals += dict.fromkeys(reasons)
        return None

    def copy_on_disk(self, found: Found) -> Candidate | None:
        """The same checkpoint on disk, of one that was found in memory."""
        wanted = (found.step, found.candidate.manifest.attempt)
        same = [c for c in self._candidates if c.tier == "disk" and (c.manifest.step, c.manifest.attempt) == wanted]
        return same[0] if same else None

    def refuse_all(self) -> None:
        """Raises the error of a run that has checkpoints on disk or in the store, none of which can be loaded; returns
        if it has none.

        Raises:
            StoreError: names them.
        """
        durable = [refusal for refusal in self.refusals if not refusal.file.startswith("memory/")]
        if self._old:
            raise StoreError(self._old)
        if durable:
            by_reason: dict[str, list[str]] = {}
            for refusal in durable:
                by_reason.setdefault(refusal.reason, []).append(refusal.file)
            named = "; ".join(f"{', '.join(files[:4])} ({reason})" for reason, files in by_reason.items())
            raise StoreError(
                f"no checkpoint below {self.store.where(self.folder)} can be loaded: {named}; remove the folder to "
                "train from the start"
            )

    def _open(self, candidate: Candidate) -> tuple[Found | None, list[str]]:
        """Index and state, verified; or the file that is refused and why."""
        manifest, where = candidate.manifest, candidate.name
        small = [entry for name in (INDEX, STATE) if (entry := manifest.file(name))]
        if len(small) < 2:
            return None, [f"{where}/manifest.json", f"it lists no {INDEX} or no {STATE}"]
        folder = self._folder(candidate)
        self._bring(candidate, small, [{INDEX, STATE}] * self.machines.count, folder)
        contents = []
        for entry in small:
            content = verified_bytes(folder / entry.path, entry)
            if content is None:
                return None, [f"{where}/{entry.path}", "not what was written"]
            contents.append(content)
        try:
            index = parse_index(contents[0], manifest, f"{where}/{INDEX}")
            state = json.loads(contents[1])
            if not isinstance(state, dict):
                raise ValueError("not a JSON object")
        except (StoreError, ValueError, RecursionError) as error:
            return None, [f"{where}/{INDEX if isinstance(error, StoreError) else STATE}", str(error)]
        try:
            return Found(candidate, folder, index, self.read_state(state)), []
        except ValueError as error:
            return None, [f"{where}/{STATE}", describe(error)]

    def load(self, found: Found, tensors: Mapping[str, Tensor]) -> bool:
        """Fills the tensors in place; False if a file is not what was written: what they hold then must not be used."""
        wrong = misfits(found.index, describe_tensors(tensors))
        if wrong:
            self.refusals.append(Refusal(f"{found.candidate.name}/{INDEX}", wrong))
            return False
        pieces: list[LocalPiece] = local_pieces(tensors, owned=False)
        needs = self.ranks.all_gather_json(needed_files(found.index, pieces))
        of_rank = self.machines.of_rank
        wanted: list[set[str]] = [set() for _ in range(self.machines.count)]
        for rank, names in enumerate(needs):
            wanted[of_rank[rank]].update(names)
        manifest = found.candidate.manifest
        mine = needs[self.ranks.rank]
        here = self.machines.ranks(self.machines.mine)
        first = [name for name in mine if next(rank for rank in here if name in needs[rank]) == self.ranks.rank]
        filler = Filler(found.folder, manifest, found.index, pieces)
        away = ""
        damaged: list[str] = []
        if found.candidate.tier == "store":
            try:
                with ThreadPoolExecutor(_FETCHES) as pool:
                    fetches = {name: pool.submit(self._fetch, found.candidate, name, found.folder) for name in first}
                    damaged = filler.fill_verified(first, lambda name: fetches[name].result())
            except StoreError as error:
                away = str(error)
            self._raise_if_any(away)
        else:
            self._bring(found.candidate, manifest.files, wanted, found.folder)
            damaged = filler.fill_verified(first)
        refused = [name for part in self.ranks.all_gather_json(damaged) for name in part]
        if refused:
            self.refusals += [Refusal(f"{found.candidate.name}/{name}", "not what was written") for name in refused]
            return False
        filler.fill([name for name in mine if name not in first])
        return True

    def _folder(self, candidate: Candidate) -> Path:
        if candidate.tier == "store":
            return self.disk / f".fetched-{step_folder(candidate.manifest.step)}"
        known = candidate.folders.get(self.machines.mine)
        if known is not None:
            return Path(known)
        # Not here: it comes from another machine, into the place that it has there.
        base = self.memory if candidate.tier == "memory" and self.memory is not None else self.disk
        return base / Path(next(iter(candidate.folders.values()))).name

    def _bring(self, candidate: Candidate, files: list[CheckpointFile], wanted: list[set[str]], folder: Path) -> None:
        """Fetches what a machine lacks, from the store or from another machine."""
        if candidate.tier == "store":
            away = ""
            try:
                for entry in files if self.machines.is_leader else ():
                    self._fetch(candidate, entry.path, folder)
            except StoreError as error:
                away = str(error)
            self._raise_if_any(away)
            return
        everywhere = all(names <= candidate.present.get(m, frozenset()) for m, names in enumerate(wanted))
        if not everywhere:
            bring(files, wanted, candidate.present, self.machines, folder, self.ranks.saving)
            self.ranks.all_gather_json(None)

    def _raise_if_any(self, message: str) -> None:
        """Raises one rank's error on all of them: none may wait for one that has given up.

        Raises:
            StoreError: any rank has a message.
        """
        if first := self.ranks.first_message(message):
            raise StoreError(first)

    def _fetch(self, candidate: Candidate, name: str, folder: Path) -> None:
        """One file from the object store; what is missing there is missing here, and found out when it is read."""
        make_private_folder(folder)
        target = folder / name
        target.unlink(missing_ok=True)
        try:
            self.store.get_file(f"{candidate.folders[0]}/{name}", target)
        except FileNotFoundError:
            return
