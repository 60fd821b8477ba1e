"""The model card: what a person must know before using a model, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.heads import OpenSetHead

if TYPE_CHECKING:
    from headstart.model.model import Model

__all__ = ["model_card"]

_MOST_CLASSES = 200


def model_card(model: Model) -> str:
    """Return the card of a model, from what its provenance holds."""
    provenance = model.provenance
    like = provenance.get("like", "training rows")
    lines = [
        f"# {_plain(provenance.get('title', 'A headstart model'))}",
        "",
        str(provenance.get("verdict", "This model has not been evaluated.")),
        "",
        "## What it does",
        "",
        f"- task: {model.task.kind} of {model.backbone.modality} rows",
        *_origin_lines(model),
        f"- trained with: headstart {provenance.get('headstart', 'unknown')} on runtime {model.runtime or 'unknown'}",
        "",
    ]
    if model.task.classes:
        shown = ", ".join(_plain(name) for name in model.task.classes[:_MOST_CLASSES])
        more = len(model.task.classes) - _MOST_CLASSES
        lines += ["## Classes", "", shown + (f" and {more} more" if more > 0 else ""), ""]
    if isinstance(model.head, OpenSetHead):
        lines += ['A row is answered "unknown" where the output for rows of no class is above that of every class.', ""]
    elif model.unknown_above is not None:
        share = f"{100 * model.unknown_above:g} %"
        lines += [
            f'A row is answered "unknown" where the entropy of its probabilities is above {share} of the largest.',
            "",
        ]
    lines += _adaptation_lines(provenance.get("adaptation", {}))
    metrics: dict[str, Any] = provenance.get("metrics", {})
    if metrics:
        lines += [
            f"## Measured on {provenance.get('measured_on', 'sealed test rows')}",
            "",
            "| metric | value | 95 % interval |",
            "|---|---|---|",
        ]
        lines += [f"| {name} | {m['value']:.4g} | {m['low']:.4g} to {m['high']:.4g} |" for name, m in metrics.items()]
        lines.append("")
    lines += [
        "## Use",
        "",
        "```python",
        "import headstart",
        'model = headstart.load_model("this folder")',
        'model.predict("new rows").to_csv("predictions.csv")',
        "```",
        "",
        "## Limits",
        "",
        f"The figures hold for rows like the {like}. Rows marked `unusual` in the predictions are not like them:",
        "do not rely on their answers. Labels, their mistakes and their biases came from the training data.",
        "",
    ]
    return "\n".join(lines)


def _origin_lines(model: Model) -> list[str]:
    """Return where the network's two parts come from, and what of them was trained."""
    backbone, rows = model.backbone, model.provenance.get("train_rows", "an unknown number of")
    tuned: dict[str, Any] = model.provenance.get("fine_tuning", {})
    deep: dict[str, Any] = model.provenance.get("deep_adaptation", {})
    adaptation: dict[str, Any] = model.provenance.get("adaptation", {})
    how = f"fine-tuned with strategy `{_strategy(tuned)}`" if tuned else "frozen"
    if deep and deep.get("base_weights_digest") != backbone.weights_digest:
        how = f"trained for another domain with strategy `{_strategy(deep)}`"
    lines = [f"- base model: `{backbone.name}`, {how} ({backbone.origin}; licence: {backbone.licence})"]
    if tuned:
        lines += [
            f"- started from weights {str(tuned.get('base_weights_digest', 'unknown'))[:16]}, now {backbone.weights_digest[:16]}",
            f"- trained: {_plain(tuned.get('plan', 'unknown'))}",
            f"- head: {_plain(tuned.get('head', type(model.head).__name__))}, trained on {rows} labelled rows",
        ]
    elif deep:
        lines += [
            f"- started from weights {str(deep.get('base_weights_digest', 'unknown'))[:16]}, now {backbone.weights_digest[:16]}",
            f"- trained: {_plain(deep.get('plan', 'unknown'))}",
            f"- head: {_plain(deep.get('head', type(model.head).__name__))}, trained by "
            f"{_plain(deep.get('method') or 'a joint loss')} on {deep.get('source_rows', 'an unknown number of')} labelled rows "
            f"and {deep.get('target_rows', 'an unknown number of')} rows without labels",
        ]
    elif adaptation:
        lines.append(f"- head: {_plain(adaptation['method'])}, learnt from {rows} labelled source rows")
    else:
        verb = "trained" if model.head.kind in {"network", "open-set"} else "solved"
        lines.append(f"- head: {type(model.head).__name__}, {verb} on {rows} labelled rows")
    if later := model.provenance.get("test_time"):
        lines.append(
            f"- then adapted: `{later['method']}` on {later['target_rows']} rows without labels, not measured since"
        )
    return lines


def _strategy(trained: dict[str, Any]) -> str:
    return str(trained.get("strategy", {}).get("name", "unknown"))


def _adaptation_lines(adaptation: dict[str, Any]) -> list[str]:
    """Return between which domains the model was adapted, what was chosen, and why."""
    if not adaptation:
        return []
    score, margin = adaptation["score"], adaptation["margin"]
    shown = "" if score is None else f", score {score:.4g}, margin {margin:.3g}"
    new_rows = adaptation["new_rows"]
    return [
        "## Adaptation",
        "",
        *(
            f"- {name}: {_plain(adaptation[name]['name'])}, {adaptation[name]['rows']:,} rows, "
            f"digest {adaptation[name]['digest'][:16]}"
            for name in ("source", "target")
        ),
        f"- method: {_plain(adaptation['method'])}, chosen {adaptation.get('chosen', 'without target labels')} by the rule "
        f"{adaptation['rule']}{shown}",
        f"- why: {_plain(adaptation['reason'])}",
        "- it answers for rows of the target, not of the source",
        *([f"- rows that were not in the target above get {_plain(new_rows)}"] if new_rows else []),
        "",
    ]


def _plain(text: Any) -> str:
    """Return text that cannot act as Markdown or HTML."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in str(text)).replace("\n", " ")
