"""EventBridge Scheduler without waiting: `POST /_embedded/schedules/NAME` runs a schedule's target now.

The target is called as Scheduler calls it, with the schedule's role. Only universal targets are supported, such as
`arn:aws:scheduler:::aws-sdk:cloudformation:updateStack`; any other target is refused.
"""

from __future__ import annotations

import json
import re

import boto3
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from moto.scheduler.models import scheduler_backends
from moto.utilities.utils import get_partition
from werkzeug.wrappers import Request, Response

from extended_dlc.rehearsal.embedded.sessions import credentials_of_role
from extended_dlc.rehearsal.embedded.shapes import Refusal

ROUTE = re.compile(r"/_embedded/schedules/(?P<name>[^/]+)")
_TARGET = re.compile(r"arn:aws[\w-]*:scheduler:::aws-sdk:(?P<service>[\w-]+):(?P<action>\w+)")


def respond(request: Request, name: str, *, port: int) -> Response:
    """Run the target of the first schedule of this name, in any account and region."""
    if request.method != "POST":
        return Response("POST runs the schedule\n", 405)
    for account_id, regions in list(scheduler_backends.items()):
        for region, backend in list(regions.items()):
            for group in list(backend.schedule_groups.values()):
                if name in group.schedules:
                    return _run(group.schedules[name].target, group.name, str(account_id), str(region), port)
    return Response(f"there is no schedule '{name}'\n", 404)


def _run(target: dict[str, str], group: str, account_id: str, region: str, port: int) -> Response:
    found = _TARGET.fullmatch(target["Arn"])
    if found is None:
        return Response(f"the target {target['Arn']} is no call of an API\n", 400)
    try:
        # aws:SourceArn is the schedule's group (EventBridge Scheduler user guide, "Confused deputy prevention")
        source = f"arn:{get_partition(region)}:scheduler:{region}:{account_id}:schedule-group/{group}"
        role = target["RoleArn"]
        client = boto3.client(
            found["service"],
            region_name=region,
            endpoint_url=f"http://localhost:{port}",
            **credentials_of_role(role, region, "scheduler", "scheduler.amazonaws.com", source=source),
        )
        getattr(client, xform_name(found["action"]))(**json.loads(target.get("Input") or "{}"))
    except (Refusal, ClientError, BotoCoreError) as error:
        return Response(f"{error}\n", 409)
    return Response("done\n", 200)
