# SPDX-License-Identifier: Apache-2.0
"""What the tensorboard package reads in a run's event files, for tests/e2e/reports_test.cpp.

    read_event_file.py RUN/tb > EVENTS.json
        {"files": [...], "first": "brain.Event:2", "points": [[tag, step, value, wall_time], ...], "reloaded": {tag: [steps]}}
"""
import json
import os
import sys

from tensorboard.backend.event_processing import event_file_loader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder = sys.argv[1]
files = sorted(os.listdir(folder))
first, points = None, []
for name in files:
    for event in event_file_loader.LegacyEventFileLoader(os.path.join(folder, name)).Load():
        first = first or event.file_version
        points += [[value.tag, event.step, value.simple_value, event.wall_time] for value in event.summary.value]
accumulator = EventAccumulator(folder, size_guidance={"tensors": 0, "scalars": 0})
accumulator.Reload()
shown = {tag: [e.step for e in accumulator.Tensors(tag)] for tag in accumulator.Tags()["tensors"]}
shown.update({tag: [e.step for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]})
json.dump({"files": files, "first": first, "points": points, "reloaded": shown}, sys.stdout)
