"""A matplotlib figure that notebooks show without pyplot (extra ``plot``)."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from dynamo_planner.core.extras import needs_extra

with needs_extra("plot"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure on the Agg canvas, which no window and no global state knows; a notebook shows it as a picture."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"facecolor": "white", **options})
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def axes_or_new(ax: Any, **options: Any) -> Any:
    """The axes that are given, or those of a new figure with these options."""
    return NotebookFigure(layout="constrained", **options).subplots() if ax is None else ax


def figure_of(panel: Any) -> Figure:
    """The figure that axes are in, also where they are in a subfigure."""
    figure: Figure = panel.figure.canvas.figure
    return figure
