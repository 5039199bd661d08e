# SPDX-License-Identifier: Apache-2.0
"""What the wandb package finds in the files of an offline run, for tests/e2e/run_reports_test.cpp.

    read_wandb.py DIR > FACTS.json
        {"config": {...}, "history": [{...}, ...], "summary": {...}}, of the newest run in DIR/wandb
"""
import glob
import json
import os
import sys

from wandb.proto import wandb_internal_pb2


def records(path):
    """The messages of a .wandb file: LevelDB's log format (blocks of 32 KiB; checksum, length and kind before each part)
    behind seven bytes of its own."""
    data, at, message = open(path, "rb").read(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        message += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


files = sorted(glob.glob(os.path.join(sys.argv[1], "wandb", "offline-run-*", "*.wandb")), key=os.path.getmtime)
facts = {"config": {}, "history": [], "summary": {}}
name = lambda item: item.key or "/".join(item.nested_key)
for data in records(files[-1]):
    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    kind = record.WhichOneof("record_type")
    if kind == "run":
        facts["config"].update({name(item): json.loads(item.value_json) for item in record.run.config.update})
        facts["name"], facts["id"] = record.run.display_name, record.run.run_id
    elif kind == "history":
        facts["history"].append({name(item): json.loads(item.value_json) for item in record.history.item})
    elif kind == "summary":
        facts["summary"].update({name(item): json.loads(item.value_json) for item in record.summary.update})
json.dump(facts, sys.stdout)
