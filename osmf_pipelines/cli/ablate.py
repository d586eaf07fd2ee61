"""`osmf ablate`: the switches of Group-DPO and its controls, compared on simulated markets."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from osmf_models.recipes import RECIPES
from osmf_pipelines.settings import Settings

_console = Console()


def ablate(
    arm: Annotated[
        list[str] | None,
        typer.Option(help="only this arm (may be repeated; pretrained and group_dpo are always there); default all"),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="of pretraining and of every arm (may be repeated); default 0")
    ] = None,
    home: Annotated[
        list[Path] | None,
        typer.Option(help="OSMF_HOME of a market with an export (may be repeated); default the present one"),
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="as of which day; default the last export of each home"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="folder to write; default ablation in OSMF_HOME")] = None,
    recipe: Annotated[str | None, typer.Option(help=f"of every arm: {', '.join(RECIPES)}; default OSMF_RECIPE")] = None,
    products: Annotated[int, typer.Option(min=1, help="held-out products judged in each category, at most")] = 100,
    contradictions: Annotated[
        int, typer.Option(min=1, help="held-out contradictions that an implicit reward is asked about, at most")
    ] = 64,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="replaces a field of the recipe in all arms (may be repeated)"),
    ] = None,
    hold_out_groups: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="share of each market's groups that no arm is trained on, to be told of"),
    ] = 0.0,
    hold_out_scope: Annotated[
        str | None,
        typer.Option(help="category that no arm is trained on, to be told of; auto: one with several groups"),
    ] = None,
    list_arms: Annotated[bool, typer.Option("--list", help="only show the arms and what they change")] = False,
) -> None:
    """Turns the switches of Group-DPO one by one, trains the controls, and compares all on held-out products.

    Needs a simulated market with a training export: `osmf demo`, or `osmf demo --only data`. Arms are trained by the
    recipe, each from the same pretrained model (the home's own where it fits), and judged by the market's exact click
    rates: mean and worst group, share of groups lifted over the pretrained model (Holm), picture quality, how far
    pictures are from logged ones, and how often the implicit reward orders contradictions rightly. Intervals (95%) are
    by bootstrap over products, then over seeds and markets where there are several; with one seed they do not tell how
    much another training would differ. What is held out by --hold-out-groups and --hold-out-scope is judged too: what
    arms do for groups that they have never seen.

    Writes ablation.json (its keys are described in docs/group_dpo.md), ablation.md, ablation.png and calibration.png.
    Every run is kept in a folder named by its configuration: run the command again to go on after an interruption, or
    with another arm, seed or home to add to what is there.
    """
    from rich.table import Table

    from osmf_models.overrides import apply_overrides
    from osmf_models.recipes import load_recipe
    from osmf_pipelines.bench.ablation_plan import chosen_arms

    settings = Settings()
    name, overrides, arms = recipe or settings.recipe, tuple(set_ or ()), tuple(arm or ())
    chosen = chosen_arms(apply_overrides(load_recipe(name), overrides).dpo, arms)
    if list_arms:
        listing = Table("arm", "changes to recipe " + name)
        for one in chosen:
            listing.add_row(one.name, ", ".join(one.assignments))
        _console.print(listing)
        return
    from osmf_pipelines.bench.ablation_groups import HoldOut
    from osmf_pipelines.bench.ablation_market import open_markets
    from osmf_pipelines.bench.run_ablation import AblationOptions, run_ablation

    folder = (output or settings.home / "ablation").absolute()
    hold_out = HoldOut(hold_out_groups, hold_out_scope)
    options = AblationOptions(name, overrides, arms, tuple(seed or (0,)), products, contradictions, hold_out)
    run_ablation(settings, options, open_markets(settings, home or [], day and day.date(), folder), folder, _console)
