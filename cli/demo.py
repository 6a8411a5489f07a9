"""`sgn demo`: every step in two minutes, on synthetic people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from . import options, render, tables
from .training_table import shown_epochs

_CASE = "cs"
# One instead of two: half the time, and enough to learn from.
_NUM_REPLICATIONS = 1


def demo(
    overrides: options.Overrides = None,
    out: Annotated[Path, options.out_path("DIR", "Folder for all output.")] = Path("runs/demo"),
    workers: options.Workers = 2,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Try every step in two minutes, without any data.

    Generates recordings, prepares them, trains through Ray and scores the result.
    """
    render.note(  # before the imports, which take seconds the first time
        f"this takes about two minutes; all output goes to {out}; delete it when you are done"
    )
    from sgnray.config import recipe_for
    from sgnray.distributed.address import LOCAL
    from sgnray.errors import RunError
    from sgnray.evaluate import evaluate_run, write_evaluation
    from sgnray.prepare import prepare_dataset
    from sgnray.synth.generate import synthesize
    from sgnray.train import train_run

    recipe = recipe_for("synth", _CASE, overrides or ())
    address = LOCAL if workers else None  # a demo does not depend on a cluster
    on_ray = f" --address {address}" if address else ""
    raw, data, run = out / "raw", out / "data", out / "run"
    raw_word, data_word, run_word = (shlex.quote(str(folder)) for folder in (raw, data, run))
    render.note(f"\n1/4  sgn synth {raw_word} --replications {_NUM_REPLICATIONS}")
    with render.progress("recordings") as on_progress:
        made = synthesize(
            raw, num_replications=_NUM_REPLICATIONS, overwrite=True, on_progress=on_progress
        )
    render.note(f"     {made.num_files:,} recordings of {len(made.class_names)} actions")
    render.note(f"\n2/4  sgn prepare --raw {raw_word} --out {data_word}")
    with render.progress("clips") as on_progress:
        prepared = prepare_dataset(raw, out=data, overwrite=True, on_progress=on_progress)
    render.note(f"     {prepared.info.num_clips:,} clips, {prepared.info.num_poses:,} poses")
    render.note(
        f"\n3/4  sgn train --case {_CASE} --workers {workers}{on_ray} --device cpu "
        f"--data {data_word} --runs {shlex.quote(str(out))} "
        f"--name {run.name} {shlex.join(overrides or ())}".rstrip()
    )
    with shown_epochs(str(workers or "")) as screen:
        try:
            finished = train_run(
                recipe,
                data,
                workers=workers,
                address=address,
                device="cpu",  # fast enough here; on GPUs, each worker needs its own
                runs_dir=out,
                name=run.name,
                command=options.command_line(),
                on_epoch=screen,
                on_progress=screen.on_progress,
            )
        except RunError as error:  # a demo with other options; its advice names --name
            now = f"choose another folder with --out, or delete {out} if no command uses it"
            raise RunError(
                error.what, where=error.where, now=now, problems=error.problems
            ) from error
    render.note(f"\n4/4  sgn eval {run_word} --data {data_word}")
    with render.progress("test clips") as on_progress:
        report = evaluate_run(finished.folder, dataset_dir=data, on_progress=on_progress)
    page = write_evaluation(report, finished.folder)
    if json:
        return render.as_json(finished.report.to_dict())  # no times: always the same
    render.result(*tables.report(report))
    render.note(f"\nwritten: {page}; open it in a browser")
    render.note("\nnext steps")
    recording = shlex.quote(str(min(raw.glob("*.skeleton"))))
    next_steps = {
        "recognize the action in a recording": f"sgn predict {recording} --checkpoint {run_word}",
        "view it": f"sgn view {recording}",
        "the same with real people": "sgn prepare --raw nturgbd_skeletons_s001_to_s017.zip",
    }
    for purpose, command in next_steps.items():
        render.note(f"  {purpose}\n    {command}")
    return None
