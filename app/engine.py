"""The costly parts, each made when it is first needed and then kept: store, encoder, gate, model, ledger, router.

engine = Engine(settings)
engine.store.list()        # opens the database; no model, no torch
engine.lm                  # loads the model, once, however many threads ask
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app.errors import NotReady
from app.settings import Settings
from app.views import ModelState
from knowledge.errors import PalimpsestError

if TYPE_CHECKING:
    from editors.guard import Guard
    from editors.ledger import WeightLedger
    from editors.statistics import MomentStore
    from knowledge.world import World
    from language_model.model import LanguageModel
    from memory.embedder import Embedder
    from memory.gate import Gate
    from memory.router import Router
    from memory.store import FactStore

log = logging.getLogger(__name__)


class Engine:
    """Lazily built collaborators of one settings object. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._store_lock = threading.RLock()
        self._model_lock = threading.RLock()
        self._store: FactStore | None = None
        self._lm: LanguageModel | None = None
        self._ledger: WeightLedger | None = None
        self._router: Router | None = None
        self._failure: PalimpsestError | None = None
        self._loading = False

    @cached_property
    def world(self) -> World:
        """The bundled world: relations, entities, aliases."""
        from knowledge.world import load_world

        return load_world()

    @cached_property
    def world_names(self) -> tuple[str, ...]:
        """Every name and alias of the world, for the parser to recognise subjects by."""
        return (*(name for names in self.world.entities.values() for name in names), *self.world.aliases)

    @cached_property
    def embedder(self) -> Embedder:
        from memory.embedder import load_embedder

        return load_embedder(self.settings.encoder)

    @property
    def store(self) -> FactStore:
        """The fact store; the first use opens or makes the database."""
        with self._store_lock:
            if self._store is None:
                from memory.store import FactStore

                self.settings.data.mkdir(parents=True, exist_ok=True)
                self._store = FactStore(
                    self.settings.url,
                    self.embedder,
                    index_folder=self.settings.data / "index",
                    index_switch=self.settings.index_switch,
                )
            return self._store

    @cached_property
    def gate(self) -> Gate:
        from memory.gate import Gate

        return Gate(self.store, threshold=self.settings.threshold)

    @property
    def state(self) -> tuple[ModelState, str]:
        """How far the model is, and why where it failed. Never waits."""
        if self._lm is not None and not self._loading:
            return "ready", ""
        if self._failure is not None:
            return "failed", str(self._failure)
        return ("loading", "The model is being loaded.") if self._loading else ("cold", "Loads at the first question.")

    @property
    def lm(self) -> LanguageModel:
        """The model; the first use loads it and later ones wait for that.

        Raises:
            NotReady: it cannot be loaded; the message says why.
        """
        if self._lm is not None:
            return self._lm
        with self._model_lock:
            if self._lm is None:
                self._loading, self._failure = True, None
                try:
                    self._lm = self._load()
                except PalimpsestError as error:
                    self._failure = error
                    raise
                except Exception as error:  # a broken installation; the page must say so instead of waiting
                    log.exception("loading the model failed")
                    self._failure = NotReady(f"The model {self.settings.model!r} could not be loaded: {error}")
                    raise self._failure from error
                finally:
                    self._loading = False
            return self._lm

    def _load(self) -> LanguageModel:
        import torch

        from language_model.model import LanguageModel

        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        seed_everything(self.settings.seed)
        limit = self.settings.memory_limit
        return LanguageModel.load(
            self.settings.model,
            device=self.settings.device,
            dtype=self.settings.dtype,
            memory_limit=None if limit is None else int(limit * 2**30),
        )

    @cached_property
    def moments(self) -> MomentStore:
        """Second moments of the model's activations, cached in the data folder."""
        from editors.statistics import MomentStore

        return MomentStore(cache_dir=self.settings.data / "statistics")

    @property
    def ledger(self) -> WeightLedger:
        """The ledger of weight edits; needs the model, since its entries belong to one."""
        with self._model_lock:
            if self._ledger is None:
                from editors.ledger import WeightLedger

                guard = self.guard(self.settings.guard)
                self._ledger = WeightLedger(self.store.engine, self.lm, self.settings.weights_folder, guard=guard)
            return self._ledger

    def guard(self, limit: str) -> Guard | None:
        """What watches over new weight edits; None for "off"."""
        from editors.guard import Guard, LocalitySample

        kept = LocalitySample(self.settings.guard_sample, self.settings.seed, self.world)
        return None if limit == "off" else Guard(limit="refuse" if limit == "refuse" else "warn", sample=kept)

    @property
    def router(self) -> Router:
        with self._model_lock:
            if self._router is None:
                from memory.router import Router

                ledger = self.ledger
                self._router = Router(
                    self.lm,
                    self.gate,
                    overlay_provider=lambda: ledger.overlay() if any(_counts(e) for e in ledger.entries()) else None,
                    weight_edits_provider=lambda: [edit_json(e) for e in ledger.entries() if _counts(e)],
                )
            return self._router

    def active_weight_edits(self) -> int:
        """How many weight edits are on; counted in the database as long as the model is not loaded."""
        if self._ledger is not None:
            return sum(_counts(entry) for entry in self._ledger.entries())
        from sqlalchemy import inspect, text

        with self.store.engine.connect() as connection:
            if not inspect(connection).has_table("weight_edit"):
                return 0
            rows = connection.execute(text("SELECT active, undone FROM weight_edit")).all()
        return sum(bool(active) and not undone for active, undone in rows)

    def warm_up(self) -> None:
        """Loads everything that a first answer needs, in the calling thread; failures are kept for the header."""
        try:
            _ = self.lm
            self.router.route("Is anybody there?", mode="auto")
            self.lm.generate([self.lm.chat("Hello!")], max_new_tokens=2)
        except PalimpsestError as error:
            log.warning("%s", error)
        except Exception:  # the first question will meet it again and show it
            log.exception("warming up failed")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


def _counts(entry: Any) -> bool:
    return bool(entry.active and entry.usable and not entry.undone)


def edit_json(entry: Any) -> dict[str, Any]:
    """A weight edit as the evidence under an answer names it."""
    return {"id": entry.id, "method": entry.method, "facts": [edit.statement for edit in entry.edits]}


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch; called once, when the model is loaded."""
    import random

    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
