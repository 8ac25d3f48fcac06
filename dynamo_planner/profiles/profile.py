"""The measured performance of one engine on one kind of worker, and the curves through it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.core.notebook import facts_table
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue, ReadOnly
from dynamo_planner.profiles.decode_surface import DecodeSurface
from dynamo_planner.profiles.mixed_surface import MixedSteps
from dynamo_planner.profiles.points import DecodePoints, MixedPoints, PrefillPoints
from dynamo_planner.profiles.prefill_curve import PrefillCurve
from dynamo_planner.profiles.steps import StepCosts, Steps, step_costs
from dynamo_planner.profiles.validation import ProfileError, built
from dynamo_planner.profiles.vectorize import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PathLike(Protocol):
    """A path other than a ``str``, such as a ``pathlib.Path``."""

    def __fspath__(self) -> str: ...


class Profile(Frozen):
    """The measured performance of an engine: an immutable value, equal by content, and plain data in JSON.

    The curves are :attr:`prefill`, :attr:`decode` and :attr:`mixed`, fitted when they are first used.

    Args:
        name: its name. Default ``profile``.
        prefill_points: measurements of single prompts.
        decode_points: measurements of decoding.
        mixed_points: measurements of single steps with prompts. Default None: not measured.
        about: model, GPU, engine and origin. Default empty.

    >>> profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    >>> round(profile.prefill.ttft_ms(isl=4000), 1), round(profile.decode.itl_ms(kv_usage=0.5, context=2000), 1)
    (87.7, 16.0)
    >>> Profile.model_validate_json(profile.model_dump_json()) == profile
    True
    """

    name: str = Field(default="profile", min_length=1)
    prefill_points: PrefillPoints
    decode_points: DecodePoints
    mixed_points: MixedPoints | None = None
    about: ReadOnly[str, KnobValue | None] = Field(default_factory=FrozenMap)

    @classmethod
    def load(cls, path: str | PathLike) -> Profile:
        """Read the directory that Dynamo's profiler writes, a file that :meth:`save` wrote, or the result of a load
        test by GuideLLM or vLLM's ``bench serve`` (:mod:`~dynamo_planner.profiles.load_tests`).

        Of a directory: ``selected_prefill_interpolation/raw_data.npz`` or ``prefill_raw_data.json``, the same for
        decode, and where there are ``mixed_step.npz`` and ``meta.json``. Nothing is ever unpickled.

        Raises :class:`ProfileError`, which names the file, the key, the position and the value of what is wrong.
        """
        from dynamo_planner.profiles.files import read_profile  # noqa: PLC0415

        fields = read_profile(path)
        return built(lambda: cls.model_validate(fields), str(path))

    @classmethod
    def bundled(cls, name: str) -> Profile:
        """A profile that comes with the package.

        Raises :class:`ProfileError`, which names those that there are, where this is none of them.
        """
        from dynamo_planner.profiles.files import read_bundled  # noqa: PLC0415

        fields = read_bundled(name)
        return built(lambda: cls.model_validate(fields), name)

    @classmethod
    def named(cls, where: str) -> Profile:
        """A profile by the name of a bundled one, or by its path. Raises :class:`ProfileError`."""
        from dynamo_planner.profiles.files import bundled_profiles  # noqa: PLC0415

        bundled = bundled_profiles()
        if where in bundled:
            return cls.bundled(where)
        try:
            return cls.load(where)
        except ProfileError as error:
            raise ProfileError(f"{error}{did_you_mean(where, bundled)} bundled are {', '.join(bundled)}") from error

    @classmethod
    def from_points(
        cls,
        *,
        isl: ArrayLike,
        ttft_ms: ArrayLike,
        max_kv_tokens: float,
        context: ArrayLike,
        itl_ms: ArrayLike,
        kv_usage: ArrayLike | None = None,
        batch: ArrayLike | None = None,
        gpus: int = 1,
        prefill_ranks: int = 1,
        name: str = "profile",
    ) -> Profile:
        """A profile of your own measurements, on workers of ``gpus`` GPUs, of which those for prefill compute
        ``prefill_ranks`` prompts at once; see :class:`PrefillPoints` and :class:`DecodePoints` for the columns. The
        load of the decode points is either ``kv_usage`` or ``batch``.

        Raises :class:`ProfileError` with the column, the position and the value of what is wrong.

        >>> Profile.from_points(
        ...     isl=[128, 999], ttft_ms=[0.01, 0.04], max_kv_tokens=1e6, batch=[1, 8], context=[500, 500], itl_ms=[6, 9]
        ... )
        Traceback (most recent call last):
        ...
        dynamo_planner.profiles.validation.ProfileError: ttft_ms[0] is 0.01, and 1 to 1e+06 is plausible: TTFT is in ms
        """
        if (kv_usage is None) == (batch is None):
            raise ProfileError("the load of the decode points is either kv_usage or batch: give one of the two")
        if kv_usage is None:
            try:
                with np.errstate(divide="ignore", invalid="ignore"):
                    kv_usage = np.multiply(np.asarray(batch, float), np.asarray(context, float)) / max_kv_tokens
            except (TypeError, ValueError, ZeroDivisionError):
                raise ProfileError(
                    "batch, context and max_kv_tokens take numbers, one batch for each context"
                ) from None
        prefill = {"isl": isl, "ttft_ms": ttft_ms, "gpus": gpus, "ranks": prefill_ranks}
        decode = {
            "max_kv_tokens": max_kv_tokens,
            "kv_usage": kv_usage,
            "context": context,
            "itl_ms": itl_ms,
            "gpus": gpus,
        }
        return built(lambda: cls(name=name, prefill_points=prefill, decode_points=decode))

    @classmethod
    def from_history(cls, snapshots: Iterable[Snapshot], name: str = "history", chunk_tokens: int = 2048) -> Profile:
        """The profile that the history of a service gives: a linear step, fitted to the latencies of calm pools
        (:mod:`~dynamo_planner.profiles.step_model`). A day with its load says more than an hour; what a load never
        showed comes from the shape that measured engines share.

        Args:
            snapshots: The history, oldest first, as of ``HistorySource``.
            name: The profile's name. Default ``history``.
            chunk_tokens: The token budget of a step of aggregated engines. Default 2048.

        Raises :class:`ProfileError` where no snapshot has the latencies of a calm pool.

        >>> from dynamo_planner.core.metrics import Traffic
        >>> from dynamo_planner.core.snapshot import PoolSpec, PoolStatus
        >>> spec = PoolSpec(role="decode")
        >>> def seen(minute, batch):
        ...     pool = PoolStatus(spec=spec, replicas=1, running=batch, queued=0)
        ...     traffic = Traffic(requests_per_s=5, window_s=60, isl=1000, osl=200, itl_ms=6 + 0.1 * batch)
        ...     return Snapshot(at_s=60 * minute, traffic=traffic, pools={"decode": pool})
        >>> profile = Profile.from_history(seen(minute, 5 + minute % 50) for minute in range(1440))
        >>> [round(float(profile.step_ms(0, batch, 1200 * batch)), 1) for batch in (5, 30, 100)]
        [6.6, 9.0, 15.7]
        """
        from dynamo_planner.profiles.from_history import fields_from_history  # noqa: PLC0415

        return cls(**fields_from_history(snapshots, name, chunk_tokens))

    def save(self, path: str | PathLike) -> None:
        """Write one JSON file, a line for each column, so that it can be kept and compared in git.

        Raises :class:`ProfileError` where it cannot be written.
        """
        from dynamo_planner.profiles.files import write_profile  # noqa: PLC0415

        write_profile(self.model_dump(mode="json", exclude_none=True), path)

    def plot(self, figure: Any = None) -> Figure:
        """A figure of TTFT, throughput and the ITL surface with the measured points (extra ``plot``).

        ``figure`` is a figure or subfigure of matplotlib to draw on; a new one by default.
        """
        from dynamo_planner.profiles.plot import plot_curves  # noqa: PLC0415

        about = [str(self.about[key]) for key in ("model", "system", "backend") if self.about.get(key)]
        return plot_curves(self.prefill, self.decode, "\n".join([self.name, " · ".join(about)]).strip(), figure)

    @cached_property
    def prefill(self) -> PrefillCurve:
        """TTFT and prefill throughput over ISL."""
        return PrefillCurve(self.prefill_points)

    @cached_property
    def decode(self) -> DecodeSurface:
        """ITL and decode throughput over KV usage and context, and what keeps an ITL target."""
        return DecodeSurface(self.decode_points)

    @cached_property
    def mixed(self) -> MixedSteps | None:
        """Steps that compute prompts and decode at once, where they were measured."""
        return None if self.mixed_points is None else MixedSteps(self.mixed_points)

    @cached_property
    def max_batch(self) -> float:
        """The most requests in flight that were measured at any context."""
        return max(self.decode_points.batch)

    @cached_property
    def costs(self) -> StepCosts:
        """The linear step time that comes closest to both curves."""
        return step_costs(self.prefill_points, self.decode_points)

    def step_ms(self, prefill_tokens: Numbers, num_decode: Numbers, kv_tokens: Numbers) -> Any:
        """The duration in ms of one engine step; see :class:`~dynamo_planner.profiles.steps.Steps`."""
        return self.steps.step_ms(prefill_tokens, num_decode, kv_tokens)

    @cached_property
    def steps(self) -> Steps:
        """Steps of prompts and of decoding, alone and together."""
        return Steps(self.prefill, self.decode, self.mixed)

    @cached_property
    def digest(self) -> str:
        """Tells measurements apart: equal for profiles with the same points, whatever their names."""
        points = self.prefill_points, self.decode_points, self.mixed_points
        return sha256("".join([each.model_dump_json() for each in points if each]).encode()).hexdigest()[:16]

    def _repr_html_(self) -> str:
        """What was measured, for notebooks."""
        prefill, decode = self.prefill_points, self.decode_points
        about = [(str(key), str(value)) for key, value in self.about.items() if isinstance(value, str | int | float)]
        return facts_table(
            [
                ("profile", self.name),
                *about,
                ("GPUs of a prefill replica", prefill.gpus),
                ("GPUs of a decode replica", decode.gpus),
                ("KV cache, tokens", decode.max_kv_tokens),
                ("TTFT ms, measured", f"{min(prefill.ttft_ms):.4g} to {max(prefill.ttft_ms):.4g}"),
                ("ITL ms, measured", f"{min(decode.itl_ms):.4g} to {max(decode.itl_ms):.4g}"),
                ("points", f"{len(prefill.isl)} of prefill, {len(decode.itl_ms)} of decode"),
            ]
        )

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """The name and how many points there are, since the points themselves are hundreds of numbers."""
        points = {"prefill": self.prefill_points.isl, "decode": self.decode_points.itl_ms}
        mixed = {} if self.mixed_points is None else {"mixed": self.mixed_points.step_ms}
        return [("name", self.name), *[(f"{kind}_points", len(values)) for kind, values in {**points, **mixed}.items()]]
