#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""examples/kubernetes: the Job is well-formed, and its pods together run the whole search.

Usage: kubernetes_test.py MOAT EXAMPLE. Exit status 77 where there is no YAML parser. No cluster:
each pod's command runs here, with the variables that an indexed Job gives it.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import yaml
except ImportError:
    print("SKIPPED: no YAML parser (python3-yaml)")
    sys.exit(77)


def check(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"kubernetes_test: {what}")


def only_keys(place: dict, allowed: str, where: str) -> None:
    unknown = place.keys() - set(allowed.split())
    check(not unknown, f"{where} has no field {sorted(unknown)} (API batch/v1)")


def main() -> None:
    moat = pathlib.Path(sys.argv[1]).resolve()
    jobs = list(yaml.safe_load_all(pathlib.Path(sys.argv[2]).read_text()))
    check(len(jobs) == 1, "one document")
    job = jobs[0]
    only_keys(job, "apiVersion kind metadata spec", "the Job")
    check((job["apiVersion"], job["kind"]) == ("batch/v1", "Job"), "a Job of batch/v1")
    spec = job["spec"]
    only_keys(spec, "completions parallelism completionMode backoffLimit podFailurePolicy template",
              "spec")
    check(spec["completionMode"] == "Indexed", "pods know their index")
    for rule in spec["podFailurePolicy"]["rules"]:
        only_keys(rule, "action onExitCodes", "a rule of podFailurePolicy")
        check(rule["action"] in ("FailJob", "Ignore", "Count"), "an action that there is")
        codes = rule["onExitCodes"]
        check(codes["operator"] in ("In", "NotIn"), "an operator that there is")
        check({1, 2} <= set(codes["values"]), "found and misused are not retried")
    pod = spec["template"]["spec"]
    only_keys(pod, "restartPolicy containers", "the pod")
    check(pod["restartPolicy"] == "Never", "podFailurePolicy asks for restartPolicy Never")
    check(len(pod["containers"]) == 1, "one container")
    container = pod["containers"][0]
    only_keys(container, "name image command args resources", "the container")

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "moat").symlink_to(moat)
        results = path / "shards.json"
        with results.open("w") as out:
            for index in range(spec["completions"]):
                environment = {
                    "PATH": f"{folder}:{os.environ['PATH']}",
                    "JOB_COMPLETION_INDEX": str(index),
                }
                subprocess.run(container["command"] + container["args"], env=environment,
                               stdout=out, check=True, timeout=60)
        merged = subprocess.run([moat, "explore", "--merge", results], check=True,
                                capture_output=True, text=True, timeout=60).stdout
    check(json.loads(merged)["executions"] == 7628, f"the shards add up: {merged}")
    print(merged, end="")


main()
