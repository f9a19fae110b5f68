"""cfn-lint's rule W3005 alone, by cfn-lint's own graph: a whole lint takes seconds for each template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cfnlint.template import Template


def double_dependencies(template: dict[str, Any]) -> Iterator[str]:
    """The dependencies that a reference makes already, as `A waits for B twice`."""
    graph = Template(None, template).graph
    assert graph is not None, "cfn-lint cannot read the template"
    for name, resource in template.get("Resources", {}).items():
        after = resource.get("DependsOn", [])
        for each in [after] if isinstance(after, str) else after:
            labels = {edge["label"] for edge in graph.graph.get_edge_data(name, each).values()}
            if labels != {"DependsOn"}:
                yield f"{name} waits for {each} twice"
