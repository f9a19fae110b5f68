"""Which task goes with which release and server, and what does not go together: both sides of each rule."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from extended_dlc.decisions.access import check_access, check_network
from extended_dlc.facts.releases import task_names
from extended_dlc.facts.tasks import NATIVE_ONLY, NOT_SERVED, check_task

SERVER = Path(__file__).parents[2] / "docker" / "inference" / "extended_dlc_server" / "reading" / "tasks.py"


# tasks


@pytest.mark.parametrize(
    ("task", "last", "next_one"),
    [
        ("summarization", "4.57.6", "5.0.0"),
        ("text2text-generation", "4.57.6", "5.0.0"),
        ("translation_en_to_fr", "4.57.6", "5.23.0"),
        ("question-answering", "5.2.0", "5.3.0"),
        ("image-to-image", "5.2.0", "5.23.0"),
    ],
)
def test_a_removed_task_is_refused_with_the_release_that_had_it_last(task: str, last: str, next_one: str) -> None:
    assert check_task(task, last, "native") is None
    with pytest.raises(
        ValueError, match=rf"no task of transformers {next_one}: it was removed after {last}"
    ) as refused:
        check_task(task, next_one, "native")
    assert f"take {last}" in str(refused.value)


def test_a_task_that_came_back_as_another_name_is_refused_in_between_only() -> None:
    assert check_task("image-to-text", "4.57.6", "native") is None
    assert check_task("image-to-text", "5.23.0", "native") is None
    with pytest.raises(ValueError, match=r"5\.19\.0 or newer, where it is another name of 'image-text-to-text'"):
        check_task("image-to-text", "5.5.3", "native")


def test_a_task_that_is_newer_than_the_release_is_refused_with_its_first() -> None:
    with pytest.raises(ValueError, match=r"no task of transformers 4\.46\.3: it came with 4\.47\.0"):
        check_task("image-text-to-text", "4.46.3", "native")
    assert check_task("image-text-to-text", "4.47.0", "native") is None


def test_an_old_task_in_a_release_older_than_the_data_passes() -> None:
    assert check_task("text-generation", "4.12.0", "stock") is None


def test_a_misspelt_task_is_refused_for_the_native_server_and_only_said_for_others() -> None:
    with pytest.raises(ValueError, match="did you mean 'text-generation'"):
        check_task("text-generatoin", "5.23.0", "native")
    for server in ("stock", None):
        note = check_task("sentence-similarity", "4.51.3", server)  # the toolkit has tasks of its own
        assert note is not None
        assert "it is not checked" in note


def test_a_task_unknown_to_a_release_newer_than_the_data_is_said_and_not_refused() -> None:
    assert check_task("telepathy", "99.0.0", "native") is not None
    assert check_task("text-generation", "99.0.0", "native") is None


def test_an_image_whose_release_nobody_knows_is_not_judged() -> None:
    assert check_task("summarization", None, None) is None


def test_what_the_native_server_does_not_serve_is_refused_for_it_alone() -> None:
    with pytest.raises(ValueError, match="is not served by the native server"):
        check_task("video-classification", "5.23.0", "native")
    assert check_task("video-classification", "5.23.0", "stock") is None


def of_server(name: str) -> ast.expr:
    """What the server's module of tasks assigns to a name."""
    tree = ast.parse(SERVER.read_text())
    return next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name and node.value
    )


def test_the_tasks_that_the_native_server_does_not_serve_are_those_that_it_does_not_serve() -> None:
    served = {node.value for node in ast.walk(of_server("KINDS")) if isinstance(node, ast.Constant)}
    aliases = {"ner", "sentiment-analysis", "text-to-speech", "vqa"}
    assert task_names() - served - aliases == NOT_SERVED


def test_tasks_without_a_pipeline_are_known_where_the_native_server_has_them() -> None:
    native = {*ast.literal_eval(of_server("PIPELINES")), *ast.literal_eval(of_server("ALIASES"))}
    assert native == NATIVE_ONLY
    for task in native:
        assert check_task(task, "5.23.0", "native") is None
        assert "is not checked" in str(check_task(task, "5.23.0", "stock"))


# the network


def test_an_isolated_container_needs_nothing_from_outside() -> None:
    assert check_network(isolated=True, from_hub=False) == ()
    for wants, named in [
        ({"from_hub": True}, "the Hub, where the weights are: serve the weights from S3"),
        ({"from_hub": False, "token": True}, "the secret of the Hub's token: leave the token out"),
        ({"from_hub": False, "requirements": True}, "the package index, where the requirements are: build"),
    ]:
        with pytest.raises(ValueError, match=rf"leaves the container no way to {named}"):
            check_network(isolated=True, **wants)
        assert check_network(isolated=False, **wants) == ()


def test_subnets_without_a_way_out_are_said_for_what_comes_from_outside() -> None:
    (note,) = check_network(isolated=False, from_hub=True, requirements=True, way_out=False)
    assert "give them a NAT gateway, or serve the weights from S3" in note
    assert check_network(isolated=False, from_hub=True, way_out=None) == ()
    assert check_network(isolated=False, from_hub=True, way_out=True) == ()
    # a secret is reached through an interface endpoint
    assert check_network(isolated=False, from_hub=False, token=True, way_out=False) == ()


def test_a_gated_model_needs_a_token_where_the_container_downloads_it() -> None:
    with pytest.raises(ValueError, match=r"gated on the Hub \(licence: llama3\), and the container has no token"):
        check_access(gated=True, token=False, from_hub=True, licence="llama3")
    check_access(gated=True, token=True, from_hub=True)
    check_access(gated=True, token=False, from_hub=False)
    check_access(gated=None, token=False, from_hub=True)
