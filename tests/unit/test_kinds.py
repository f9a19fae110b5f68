"""A value of another type than its option's gets a sentence, whichever option of the library it is."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_s3 as s3

import extended_dlc
from extended_dlc import (
    Async,
    CloudBuild,
    HuggingFaceEndpoint,
    LocalBuild,
    Network,
    Placement,
    PlatformDefaults,
    Readers,
    RealTime,
    ScanGate,
    StockDlc,
    TrainingInstances,
    Variant,
)
from extended_dlc.options import _kinds
from extended_dlc.options._values import OptionError
from tests.support.hosting import CPU

RESULTS = {"PlacedModel", "PublishedImage", "ServedModel", "ServingImage"}
"""What a user gets, or writes a class of: no options."""


def constructors() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The constructors and factories of all public classes."""
    for name in sorted(set(extended_dlc.__all__) - RESULTS):
        public = getattr(extended_dlc, name)
        if isinstance(public, type):
            yield name, public
            for factory, made in vars(public).items():
                if isinstance(made, staticmethod):
                    yield f"{name}.{factory}", getattr(public, factory)


CONSTRUCTORS = dict(constructors())


def function_of(name: str) -> Any:
    made: Any = CONSTRUCTORS[name]
    return made.__init__ if isinstance(made, type) else made


def options_of(name: str) -> dict[str, Any]:
    """The options of a constructor with their types, as the check of types knows them."""
    checking = function_of(name)
    assert "__wrapped__" in vars(checking), f"{name} does not check the types of its options: decorate it"
    return dict(_kinds._kinds_of(checking.__wrapped__, CONSTRUCTORS[name].__module__))


def in_class(kind: Any) -> Iterator[Any]:
    """The classes of a type."""
    if typing.get_origin(kind) is typing.Literal:
        return
    for each in typing.get_args(kind) or (kind,):
        yield from in_class(each) if typing.get_args(each) else (each,)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_each_option_refuses_what_it_is_not_by_its_name(stack: cdk.Stack, name: str) -> None:
    made, options = CONSTRUCTORS[name], options_of(name)
    arguments = set(inspect.signature(function_of(name)).parameters)
    assert set(options) == arguments - {"self", "kwargs"}
    scope = {"scope": stack, "construct_id": "X"} if "scope" in arguments else {}
    for option, kind in options.items():
        if kind is Any:
            continue
        for wrong in (object(), object, b"x", float("nan"), {"a", "b"}):
            with pytest.raises(OptionError, match=rf"^'{option}' .*(is|has) .* and must be ") as error:
                made(**{**scope, option: wrong})
            assert error.value.option == option


def test_a_class_in_an_options_type_is_one_of_the_library_or_known_by_a_member() -> None:
    plain = {str, int, float, bool, type(None), Any}
    known = {*_kinds._INTERFACES, *extended_dlc.__all__, "Rollout"}
    classes = {each for name in CONSTRUCTORS for kind in options_of(name).values() for each in in_class(kind)}
    of_the_cdk = {each.__name__ for each in classes - plain} - known
    assert of_the_cdk == {"Construct", "Duration", "NamedImage", "RemovalPolicy", "RetentionDays"}, (
        "classes, and no interfaces"
    )


def test_a_grant_and_the_scope_of_rules_say_what_they_want(stack: cdk.Stack) -> None:
    endpoint = HuggingFaceEndpoint(stack, "Bloom", model="gpt2", image=StockDlc(base=CPU))
    for grant in ("grant_invoke", "grant_invoke_with_token", "grant_describe", "grant_read_logs", "grant_shell"):
        for wrong in ("arn:aws:iam::111111111111:role/x", None):
            with pytest.raises(OptionError, match=r"'grantee' .* must be an iam\.IGrantable, such as a role"):
                getattr(endpoint, grant)(wrong)
    with pytest.raises(OptionError, match=r"'scope' \('app'\) is a text and must be a construct, as a stack"):
        PlatformDefaults().apply("app")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RealTime(instances="2"), r"'instances' \('2'\) is a text and must be a whole number$"),
        (lambda: RealTime(instances=1.5), r"'instances' \(1\.5\) is a number with a fraction and must be a whole"),
        (lambda: RealTime(instances=True), r"'instances' \(True\) is True and must be a whole number"),
        (lambda: RealTime(weight=float("inf")), r"'weight' \(inf\) is no finite number and must be a number"),
        (lambda: RealTime(weight=float("-inf")), r"'weight' \(-inf\) is no finite number and must be a number"),
        (lambda: RealTime(weight=10**400), r"'weight' \(10*\) is no finite number and must be a number"),
        (lambda: RealTime(startup_timeout_seconds=cdk.Duration.minutes(5)), r"of the class Duration and must be a wh"),
        (lambda: RealTime(variants=Variant(name="b")), r"is of the class Variant and must be a list of Variant"),
        (lambda: RealTime(variants=["b"]), r"\(\['b'\]\) has a text in it and must be a list of Variant"),
        (
            lambda: Async(bucket="name"),
            r"'bucket' \('name'\) is a text and must be an s3\.IBucket, as s3\.Bucket\.from",
        ),
        (lambda: Readers(accounts="111111111111"), r"'accounts' \('1{12}'\) is a text and must be a list of texts"),
        (lambda: Network(vpc="vpc-1"), r"'vpc' \('vpc-1'\) is a text and must be an ec2\.IVpc, as ec2\.Vpc\.from_look"),
        (lambda: CloudBuild(no_proxy={"a": 1}), r"'no_proxy' .* is a mapping and must be a list of texts"),
        (lambda: LocalBuild(engine=3), r"'engine' \(3\) is a number and must be one of 'docker', 'podman'"),
    ],
)
def test_the_sentence_says_what_was_given_and_what_is_wanted(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_what_python_the_cdk_and_cloudformation_have_for_a_type_is_taken(stack: cdk.Stack) -> None:
    number = cdk.CfnParameter(stack, "Number", type="Number")
    names = cdk.CfnParameter(stack, "Names", type="CommaDelimitedList")
    vpc = ec2.Vpc.from_vpc_attributes(
        stack, "Vpc", vpc_id="vpc-1", availability_zones=["a", "b"], private_subnet_ids=["subnet-1", "subnet-2"]
    )
    chosen = vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
    HuggingFaceEndpoint(
        stack,
        "Bloom",
        model="gpt2",
        image=StockDlc(base=CPU),
        hosting=Async(
            instances=number.value_as_number,  # type: ignore[arg-type]
            instance_type=cdk.Fn.select(0, names.value_as_list),
            concurrency=2.0,  # type: ignore[arg-type]
            bucket=s3.Bucket.from_bucket_name(stack, "Bucket", "name"),
        ),
        network=Network(vpc=vpc, subnets=chosen.subnets),
        environment={"NAME": cdk.Fn.import_value("Name")},
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LocalBuild(engine="finch"), r"'engine' \(finch\) must be one of docker, podman"),
        (lambda: CloudBuild(compute="huge"), r"'compute' \(huge\) must be one of small, medium, large, xlarge"),
        (lambda: ScanGate(fail_on="low"), r"'fail_on' \(low\) must be one of LOW, MEDIUM, HIGH, CRITICAL"),
        (lambda: TrainingInstances(distribution="mpi"), r"'distribution' \(mpi\) must be one of torchrun, script"),
        (lambda: Placement(strategy=cdk.Aws.REGION), r"'strategy' \(.*\) must be one of spread, binpack"),
    ],
)
def test_a_text_that_is_none_of_the_choices_is_refused_with_them(make: Callable[[], object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        make()
