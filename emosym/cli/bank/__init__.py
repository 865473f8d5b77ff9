"""`emosym bank ...`."""

from __future__ import annotations

import typer

from emosym.cli.bank import add, exchange, history, listing, search, upkeep

app = typer.Typer(help="Store emotional images and search them.", no_args_is_help=True)
app.command()(upkeep.init)
app.command()(add.add)
app.command()(search.search)
app.command()(listing.ls)
app.command()(listing.show)
app.command()(listing.stats)
app.command()(history.log)
app.command()(history.diff)
app.command()(history.tag)
app.command()(history.rollback)
app.command()(history.rm)
app.command()(upkeep.verify)
app.command()(upkeep.compact)
app.command()(exchange.export)
app.command("import")(exchange.import_)
app.command()(upkeep.rebuild)
