"""Plants breaking changes in the API's document, one at a time: the judge must find each, and find nothing in what adds."""
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def schemas(document):
    return document["components"]["schemas"]


BREAKS = {
    "a path is gone": lambda d: d["paths"].pop("/v1/usage"),
    "an operation is gone": lambda d: d["paths"]["/v1/syncs/{id}"].pop("patch"),
    "a member of an answer is gone": lambda d: schemas(d)["Workspace"]["properties"].pop("slug"),
    "a member of an answer's part is gone": lambda d: schemas(d)["Sync"]["properties"].pop("topic"),
    "a member of an answer has another type": lambda d: schemas(d)["Workspace"]["properties"]["slug"].update(type="integer"),
    "a member of an answer may be null": lambda d: schemas(d)["Workspace"]["properties"]["slug"].update(type=["string", "null"]),
    "a member of an answer may lack": lambda d: schemas(d)["Workspace"]["required"].remove("slug"),
    "a member of a request is wanted": lambda d: schemas(d)["NewModel"]["required"].append("primary_key"),
    "a word of a request is taken no more": lambda d: schemas(d)["Role"].update(enum=["viewer"]),
    "a form of a request is taken no more": lambda d: schemas(d)["ReadMode"]["oneOf"].pop(),
    "a parameter is wanted": lambda d: d["paths"]["/v1/usage"]["get"]["parameters"][0].update(required=True),
    "another scope is wanted": lambda d: d["paths"]["/v1/usage"]["get"].update(security=[{"key": ["audit:read"]}]),
    "an answer has another status": lambda d: renamed(d["paths"]["/v1/workspaces"]["post"]["responses"], "201", "200"),
}
ADDS = {
    "a path comes": lambda d: d["paths"].update({"/v1/another": d["paths"]["/v1/usage"]}),
    "a member of an answer comes": lambda d: schemas(d)["Workspace"]["properties"].update(colour={"type": "string"}),
    "an error gets another code": lambda d: schemas(d)["Code"]["enum"].append("kafka.another"),
    "a member of a request comes": lambda d: schemas(d)["NewModel"]["properties"].update(colour={"type": "string"}),
}


def renamed(members, old, new):
    members[new] = members.pop(old)


def breaks(oasdiff, severity, released, present):
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / name for name in ("released.json", "present.json")]
        for name, document in zip(names, (released, present)):
            name.write_text(json.dumps(document))
        judged = subprocess.run([oasdiff, "breaking", *names, "--fail-on", "ERR", "--severity-levels", severity],
                                capture_output=True, text=True, timeout=60)
    if judged.returncode not in (0, 1):
        raise SystemExit(f"oasdiff: {judged.stderr}")
    return judged.returncode == 1


def main():
    oasdiff, severity, document = *sys.argv[1:3], json.loads(Path(sys.argv[3]).read_text())
    wrong = []
    for told, plant in [*BREAKS.items(), *ADDS.items()]:
        changed = copy.deepcopy(document)
        plant(changed)
        if breaks(oasdiff, severity, document, changed) != (told in BREAKS):
            wrong.append(told)
    print(f"planted: {len(BREAKS)} breaks found, {len(ADDS)} additions let be" if not wrong else f"WRONG: {wrong}")
    sys.exit(1 if wrong else 0)


main()
