"""Rules of CloudWatch: alarms and dashboards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from extended_dlc.rehearsal.embedded.calls import Parameters
from extended_dlc.rehearsal.embedded.rule import Rule, World


def _alarm_window(world: World, given: Parameters) -> str | None:
    period, periods = given.get("Period"), given.get("EvaluationPeriods", 1)
    if period is None:
        return None
    if period not in (10, 20, 30) and (period < 1 or period % 60):
        return f"Period {period} must be 10, 20, 30 or a multiple of 60."
    longest = 7 * 86_400 if period >= 3_600 else 86_400
    if period * periods > longest:
        return (
            f"Metrics cannot be checked across more than {'seven days' if longest > 86_400 else 'a day'} "
            "(EvaluationPeriods * Period must be <= "
            f"{longest})."
        )
    points = given.get("DatapointsToAlarm")
    if points is not None and points > periods:
        return "DatapointsToAlarm must be less than or equal to EvaluationPeriods"
    return None


def _alarm_metric(world: World, given: Parameters) -> str | None:
    metric, queries = given.get("MetricName"), given.get("Metrics") or ()
    if not given.get("EvaluationCriteria") and bool(metric) == bool(queries):
        return "Specify either MetricName or Metrics."
    if metric and bool(given.get("Statistic")) == bool(given.get("ExtendedStatistic")):
        return "Specify either Statistic or ExtendedStatistic with MetricName, and not both."
    if metric and given.get("Period") is None:
        return "Period is required with MetricName."
    if queries and sum(each.get("ReturnData", True) is not False for each in queries) != 1:
        return "Exactly one element of the Metrics list should have ReturnData set to true."
    beside = [each for each in _OF_ONE_METRIC if given.get(each)] if queries else []
    return f"{beside[0]} is not allowed with Metrics: each query has its own." if beside else None


_OF_ONE_METRIC = ("Namespace", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")


_OF_BANDS = (*("LessThanLowerOrGreaterThanUpperThreshold", "LessThanLowerThreshold", "GreaterThanUpperThreshold"),)
"""The comparisons with what an anomaly detection model expects."""


_EXTENDED = re.compile(
    r"(?:p|tm|tc|ts|wm)(?:100|\d{1,2})(?:\.\d{1,10})?|IQM|PR\([^():]*:[^():]*\)|(?:TC|TM|TS|WM)\([^():]*:[^():]*\)"
)


def _threshold(world: World, given: Parameters) -> str | None:
    if given.get("EvaluationCriteria"):
        return None
    operator, band = given.get("ComparisonOperator"), given.get("ThresholdMetricId")
    if not operator or given.get("EvaluationPeriods") is None:
        return "ComparisonOperator and EvaluationPeriods are required with MetricName and with Metrics."
    if (operator in _OF_BANDS) != bool(band):
        return f"ComparisonOperator {operator} needs a ThresholdMetricId, or excludes it: it is {band}."
    if (given.get("Threshold") is None) != bool(band):
        return "Threshold is required for an alarm with a static threshold, and for no other."
    return None


def _statistics(world: World, given: Parameters) -> str | None:
    extended, few = given.get("ExtendedStatistic"), given.get("EvaluateLowSampleCountPercentile")
    if extended and not _EXTENDED.fullmatch(extended):
        return f"The value {extended} for parameter ExtendedStatistic is not supported."
    if few and few not in ("evaluate", "ignore"):
        return f"EvaluateLowSampleCountPercentile {few} must be evaluate or ignore."
    return None


def _criteria(world: World, given: Parameters) -> str | None:
    criteria, interval = given.get("EvaluationCriteria"), given.get("EvaluationInterval")
    if bool(criteria) != (interval is not None):
        return "EvaluationInterval is required with EvaluationCriteria, and not allowed without."
    if interval is not None and interval not in (10, 20, 30) and interval % 60:
        return f"EvaluationInterval {interval} must be 10, 20, 30 or a multiple of 60."
    beside = [each for each in _WITHOUT_CRITERIA if given.get(each)] if criteria else []
    return f"{beside[0]} is not allowed with EvaluationCriteria." if beside else None


_WITHOUT_CRITERIA = (
    *_OF_ONE_METRIC,
    *("MetricName", "Metrics", "Threshold", "ComparisonOperator", "ThresholdMetricId", "EvaluationPeriods"),
    "DatapointsToAlarm",
)


def _dashboard(world: World, given: Parameters) -> str | None:
    name = given["DashboardName"]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
        return f"The DashboardName {name[:40]} must have 1 to 255 characters of A-Z, a-z, 0-9, - and _."
    try:
        body = json.loads(given["DashboardBody"])
    except ValueError:
        return "The field DashboardBody must be a valid JSON object"
    return None if isinstance(body, Mapping) else "The field DashboardBody must be a valid JSON object"


_MISSING_DATA = ("breaching", "notBreaching", "ignore", "missing")


def _missing_data(world: World, given: Parameters) -> str | None:
    missing = given.get("TreatMissingData")
    if not missing or missing in _MISSING_DATA:
        return None
    return f"TreatMissingData {missing} must be one of {', '.join(_MISSING_DATA)}."


def _expressions(world: World, given: Parameters) -> str | None:
    queries = given.get("Metrics") or ()
    names = {each.get("Id", "") for each in queries}
    for each in queries:
        if not re.fullmatch(r"[a-z][A-Za-z0-9_]*", each.get("Id", "")):
            return f"Metrics list contains the invalid id {each.get('Id')}: it must begin with a lower-case letter."
        expression = re.sub(r"'[^']*'|\"[^\"]*\"", "", each.get("Expression", ""))
        if expression.lstrip().upper().startswith("SELECT"):
            continue
        if absent := sorted(set(re.findall(r"(?<![\w.])[a-z]\w*", expression)) - names):
            return f"The expression of {each['Id']} uses {absent[0]}, which is no Id of the Metrics list."
    return None


def _actions(world: World, given: Parameters) -> str | None:
    for member in ("AlarmActions", "OKActions", "InsufficientDataActions"):
        for each in given.get(member) or ():
            if not re.fullmatch(r"arn:[\w-]+:[\w-]+:[\w-]*:\w*:.+", each):
                return f"Invalid arn syntax: {each}"
    return None


_WIDGETS = ("alarm", "custom", "explorer", "log", "metric", "text")


_WIDTH = 24


def _widgets(world: World, given: Parameters) -> str | None:
    try:
        body = json.loads(given["DashboardBody"])
    except ValueError:
        return None
    widgets = body.get("widgets", []) if isinstance(body, Mapping) else []
    for number, each in enumerate(widgets):
        where = f"The dashboard body is invalid: /widgets/{number}"
        if each.get("type") not in _WIDGETS:
            return f"{where}/type must be one of {', '.join(_WIDGETS)}."
        if not isinstance(each.get("properties"), Mapping):
            return f"{where}/properties is required."
        if not 1 <= each.get("width", 1) <= _WIDTH or not 0 <= each.get("x", 0) < _WIDTH:
            return f"{where} must be within a grid of {_WIDTH} columns."
    return None


RULES: tuple[Rule, ...] = (
    Rule(
        name="an alarm's window",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="a period that is no multiple of 60 s, a window above a day (above seven, for periods of an hour and "
        "more), and more datapoints than periods",
        source="CloudWatch API reference, PutMetricAlarm Period, EvaluationPeriods, DatapointsToAlarm; "
        "hashicorp/terraform#24070: the words of the last",
        check=_alarm_window,
        code="ValidationError",
    ),
    Rule(
        name="an alarm's metric",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="a metric or its members beside queries, neither, two statistics or none, no period, and not exactly "
        "one result",
        source="CloudWatch API reference, PutMetricAlarm MetricName, Metrics, Statistic, Period; MetricDataQuery",
        check=_alarm_metric,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's threshold",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="no threshold or periods, both a number and a band, and a comparison of the other kind",
        source="CloudWatch API reference, PutMetricAlarm Threshold, ThresholdMetricId, ComparisonOperator",
        check=_threshold,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's statistic",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an extended statistic of another form, and another treatment of few samples than the two",
        source="CloudWatch API reference, PutMetricAlarm ExtendedStatistic, EvaluateLowSampleCountPercentile",
        check=_statistics,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm of a query",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="EvaluationCriteria without an interval or beside a metric's members, and an interval without them",
        source="CloudWatch API reference, PutMetricAlarm EvaluationCriteria, EvaluationInterval",
        check=_criteria,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="a dashboard",
        operations=("cloudwatch:PutDashboard",),
        refuses="a name with other characters, and a body that is no JSON object",
        source="CloudWatch API reference, PutDashboard DashboardName, DashboardBody",
        check=_dashboard,
        code="InvalidParameterInput",
        own_words=True,
    ),
    Rule(
        name="an alarm's missing data",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="another treatment of missing data than the four",
        source="CloudWatch API reference, PutMetricAlarm TreatMissingData",
        check=_missing_data,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's expressions",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an Id that does not begin with a lower-case letter, and an expression of an Id that is not there",
        source="CloudWatch API reference, MetricDataQuery Id, Expression",
        check=_expressions,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="an alarm's actions",
        operations=("cloudwatch:PutMetricAlarm",),
        refuses="an action that is no ARN",
        source="CloudWatch API reference, PutMetricAlarm AlarmActions; hashicorp/terraform#19015: refused",
        check=_actions,
        code="ValidationError",
        own_words=True,
    ),
    Rule(
        name="a dashboard's widgets",
        operations=("cloudwatch:PutDashboard",),
        refuses="a widget without a type that there is, without properties, or outside the 24 columns",
        source="CloudWatch API reference, dashboard body structure and syntax",
        check=_widgets,
        code="InvalidParameterInput",
        own_words=True,
    ),
)
