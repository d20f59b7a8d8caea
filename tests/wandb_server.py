# ruff: noqa
# fmt: off
"""A local server that a REAL online `wandb` client talks to in tests: no internet, standard library alone.

    from wandb_server import WandbServer
    with WandbServer() as server:                           # 127.0.0.1, free ports
        subprocess.run([sys.executable, "train.py"], env=server.env(), check=True)
        run = server.run()                                  # the only run (or server.run("id"))
        run.history   -> [{"_step": 0, "train/loss": ...}, ...]   rows as a dashboard would have them
        run.config    -> {"optimizer": {...}}               ("value" wrappers removed)
        run.summary, run.files (name -> bytes), run.console, run.tags, run.name, run.group,
        run.state ("running"/"finished"/"failed"/"crashed"/"preempting"), run.exit_code,
        run.metrics (define_metric records), run.artifacts (list of dicts), run.alerts

Command line:
    wandb_server.py demo                   end-to-end proof, prints the recorded history
    wandb_server.py serve [--port N]       serve until ^C, dump the recorded runs as JSON at the end
    wandb_server.py exec [--dump out.json] -- python train.py ...

What a test can do to the server while a client runs:
    server.seed_run("id", project="p", history=[...], config={...})  a run that already exists (resume)
    server.down() / server.up()            listener closed + live connections reset / back again
    server.hang() / server.up()            accepts connections, never answers
    server.fail("graphql" | "graphql:UpsertBucket" | "filestream" | "storage", status=500, times=3)
    server.delay("filestream", seconds=1.0)    slow server
    server.stop_run("id")                  the Stop button of the web UI
    server.requests                        every request seen: (t, kind, op, status)
    server.unknown                         GraphQL operations this server does not know (must be empty)

How it is built: client -> Gate (TCP, can be closed) -> Backend (what wandb-core 0.31.0 sends, answered as its
GraphQL documents require). Not covered: the "crashed" state by missing heartbeats, the search of a sweep (a grid of all values is given out).
"""
from __future__ import annotations

import argparse, base64, contextlib, dataclasses, gzip, hashlib, json, os, pathlib, re, select, shutil
import socket, subprocess, sys, tempfile, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API_KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters: the client checks length and alphabet
ENTITY = "local"
_OP = re.compile(r"^(?:\s+|#[^\n]*(?:\n|$))*(query|mutation)\s+(\w+)", re.M)


# ----------------------------------------------------------------------------- recorded state
@dataclasses.dataclass
class Run:
    entity: str
    project: str
    id: str
    raw_config: dict = dataclasses.field(default_factory=dict)
    raw_summary: dict = dataclasses.field(default_factory=dict)
    lines: dict = dataclasses.field(default_factory=dict)  # file name -> {offset: line}
    files: dict = dataclasses.field(default_factory=dict)  # name -> bytes
    artifacts: list = dataclasses.field(default_factory=list)
    alerts: list = dataclasses.field(default_factory=list)
    upserts: list = dataclasses.field(default_factory=list)
    streams: list = dataclasses.field(default_factory=list)  # every file_stream request body
    rewinds: list = dataclasses.field(default_factory=list)
    tags: list = dataclasses.field(default_factory=list)
    name: str = ""
    notes: str = ""
    group: str = ""
    job_type: str = ""
    host: str = ""
    sweep: str | None = None
    announced: dict = dataclasses.field(default_factory=dict)  # the parameters that a sweep chose
    preempting: bool = False  # the client said so; of a run of a sweep an exit with an error then means: again
    state: str = "running"
    exit_code: int | None = None
    stopped: bool = False
    writers: dict = dataclasses.field(default_factory=dict)  # mode="shared": client id -> rank
    overwritten: int = 0  # history lines sent twice with different content: must stay 0

    @property
    def storage_id(self) -> str:
        return "UnVuOnYxOg" + hashlib.sha1(f"{self.entity}/{self.project}/{self.id}".encode()).hexdigest()[:16]

    def _file(self, name: str) -> list[str]:
        return [line for _, line in sorted(self.lines.get(name, {}).items())]

    @property
    def history(self) -> list[dict]:
        return [json.loads(x) for x in self._file("wandb-history.jsonl")]

    @property
    def system_metrics(self) -> list[dict]:
        return [json.loads(x) for x in self._file("wandb-events.jsonl")]

    @property
    def console(self) -> list[str]:
        return self._file("output.log")

    @property
    def config(self) -> dict:
        return {k: v.get("value") for k, v in self.raw_config.items() if k != "_wandb"}

    @property
    def summary(self) -> dict:
        return self.raw_summary

    @property
    def metrics(self) -> list:
        return self.raw_config.get("_wandb", {}).get("value", {}).get("m", [])

    def series(self, key: str, x: str = "_step") -> list[tuple]:
        return [(row.get(x), row[key]) for row in self.history if key in row]

    def dump(self) -> dict:
        return {
            "path": f"{self.entity}/{self.project}/{self.id}", "name": self.name, "group": self.group,
            "job_type": self.job_type, "tags": self.tags, "state": self.state, "exit_code": self.exit_code,
            "config": self.config, "metrics": self.metrics, "summary": self.summary, "history": self.history,
            "console": self.console, "files": {k: len(v) for k, v in sorted(self.files.items())},
            "artifacts": [{k: v for k, v in a.items() if k != "manifest"} for a in self.artifacts],
            "alerts": self.alerts, "rewinds": self.rewinds,
        }


@dataclasses.dataclass
class Sweep:
    id: str
    entity: str
    project: str
    text: str  # the file, as YAML
    state: str = "RUNNING"
    waiting: list = dataclasses.field(default_factory=list)  # the parameters of runs that are still to begin
    runs: list = dataclasses.field(default_factory=list)

    def node(self) -> dict:
        runs = [{"node": {"name": r.id, "state": r.state, "config": json.dumps(r.raw_config), "exitcode": r.exit_code,
                          "heartbeatAt": None, "shouldStop": r.stopped, "failed": r.state == "failed",
                          "stopped": r.stopped, "running": r.state == "running", "sampledHistory": [],
                          "summaryMetrics": json.dumps(r.raw_summary)}} for r in self.runs]
        return {"id": f"U3dlZXA6{self.id}", "name": self.id, "method": "grid", "state": self.state, "config": self.text,
                "description": None, "createdAt": None, "heartbeatAt": None, "updatedAt": None, "bestLoss": None,
                "earlyStopJobRunning": False, "controller": None, "scheduler": None, "runs": {"edges": runs}}


def combinations(text: str) -> list[dict]:
    """The runs of a sweep: the grid of all `values`; of a range its ends."""
    import itertools, yaml
    found = {}
    for name, p in yaml.safe_load(text)["parameters"].items():
        found[name] = p["values"] if "values" in p else [p["value"]] if "value" in p else [p["min"], p["max"]]
    return [{k: {"value": v} for k, v in zip(found, each)} for each in itertools.product(*found.values())]


# ----------------------------------------------------------------------------- server
class Backend:
    """State + GraphQL/FileStream/storage semantics of the server side that wandb-core talks to."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.unknown: list[tuple[str, str]] = []
        self.requests: list[tuple[float, str, str, int]] = []
        self.faults: list[dict] = []
        self.delays: dict[str, float] = {}
        self.blobs: dict[str, bytes] = {}  # storage key -> content
        self.artifacts: dict[str, dict] = {}
        self.features: dict[str, bool] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Sweep] = {}
        self.views: dict[str, dict] = {}  # the variables of the last UpsertView2 of each, by its id
        self.public_url = ""  # base URL that clients use for storage
        self.t0 = time.time()

    # -- runs
    def get(self, entity: str | None, project: str | None, run_id: str) -> Run | None:
        with self.lock:
            hits = [r for (e, p, i), r in self.runs.items()
                    if i == run_id and p == (project or "uncategorized") and (not entity or e == entity)]
            return hits[-1] if hits else None

    def by_storage_id(self, sid: str) -> Run | None:
        return next((r for r in self.runs.values() if r.storage_id == sid), None)

    def create(self, entity: str | None, project: str | None, run_id: str) -> Run:
        run = Run(entity or ENTITY, project or "uncategorized", run_id)
        run.name = run_id
        self.runs[(run.entity, run.project, run_id)] = run
        return run

    # -- faults
    def fault(self, kind: str, op: str = "") -> int | None:
        with self.lock:
            for f in self.faults:
                if f["kind"] in (kind, f"{kind}:{op}") and f["times"] != 0:
                    f["times"] -= 1
                    return f["status"]
        return None

    # -- GraphQL
    def graphql(self, body: dict) -> tuple[int, dict, str]:
        query, v = body.get("query", ""), body.get("variables") or {}
        m = _OP.search(query)
        op = m.group(2) if m else body.get("operationName") or "?"
        if (status := self.fault("graphql", op)) is not None:
            return status, {"errors": [{"message": f"injected {status}"}]}, op
        v = {**v, **v["input"]} if isinstance(v.get("input"), dict) else v
        handler = getattr(self, "op_" + op, None)
        with self.lock:
            if handler is None:
                self.unknown.append((op, query))
                return 200, {"data": None, "errors": [{"message": f"wandb_server: unknown operation {op}"}]}, op
            try:
                return 200, {"data": handler(v, query)}, op
            except LookupError as e:
                if isinstance(e, KeyError):  # a variable this server expects is missing: the protocol changed
                    self.unknown.append((op, query))
                return 200, {"data": None, "errors": [{"message": str(e)}]}, op

    def op_Viewer(self, v, q):
        return {"viewer": {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "h@example.com",
                           "name": ENTITY, "admin": False, "flags": "{}", "deletedAt": None,
                           "apiKeys": {"edges": []}, "teams": {"edges": [{"node": {"name": ENTITY}}]},
                           "defaultEntity": {"name": ENTITY}}}

    def op_GetDefaultEntity(self, v, q):
        return {"viewer": {"id": "VXNlcjox", "entity": ENTITY}}

    def op_ServerFeaturesQuery(self, v, q):
        return {"serverInfo": {"features": [{"name": k, "isEnabled": e} for k, e in self.features.items()]}}

    def op_ServerInfo(self, v, q):
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None}}

    def op_OrganizationCoreWeaveOrganizationID(self, v, q):
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def op_OrgFeatureFlags(self, v, q):
        return {"organization": {"featureFlags": []}}

    def _bucket(self, run: Run) -> dict:
        return {"id": run.storage_id, "name": run.id, "displayName": run.name, "description": None,
                "config": json.dumps(run.raw_config), "sweepName": run.sweep,
                "project": {"id": "UHJvamVjdDox", "name": run.project,
                            "entity": {"id": "RW50aXR5OjE=", "name": run.entity}},
                "historyLineCount": self._count(run, "wandb-history.jsonl")}

    @staticmethod
    def _count(run: Run, name: str) -> int:
        return max(run.lines.get(name, {}), default=-1) + 1

    def op_UpsertBucket(self, v, q):
        run = self.by_storage_id(v["id"]) if v.get("id") else None
        run = run or self.get(v.get("entity"), v.get("project"), v["name"])
        inserted = run is None
        run = run or self.create(v.get("entity"), v.get("project"), v["name"])
        run.upserts.append(v)
        if v.get("config"):
            run.raw_config = json.loads(v["config"])
        for src, dst in (("displayName", "name"), ("notes", "notes"), ("groupName", "group"), ("jobType", "job_type"),
                         ("host", "host"), ("tags", "tags"), ("sweep", "sweep")):
            if v.get(src) is not None:
                setattr(run, dst, v[src])
        if run.state != "running" and not run.writers:  # a new life of the run
            run.preempting = run.preempting and run.exit_code is None  # else the client only changed its config
            run.state, run.exit_code = "running", None
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def op_RunResumeStatus(self, v, q):
        run = self.get(v.get("entity"), v.get("project"), v["name"])
        model = {"id": "UHJvamVjdDox", "name": v.get("project"), "entity": {"id": "RW50aXR5OjE=", "name": ENTITY},
                 "bucket": None}
        if run:
            tail = lambda f: json.dumps(run._file(f)[-1:])
            t = run.raw_config.get("_wandb", {}).get("value", {}).get("t")
            model["bucket"] = {
                "id": run.storage_id, "name": run.id, "displayName": run.name, "tags": run.tags, "notes": run.notes,
                "summaryMetrics": json.dumps(run.raw_summary), "config": json.dumps(run.raw_config),
                "logLineCount": self._count(run, "output.log"),
                "historyLineCount": self._count(run, "wandb-history.jsonl"),
                "eventsLineCount": self._count(run, "wandb-events.jsonl"),
                "historyTail": tail("wandb-history.jsonl"), "eventsTail": tail("wandb-events.jsonl"),
                "wandbConfig": json.dumps({"t": t} if t is not None else {})}
        return {"model": model}

    def op_RewindRun(self, v, q):
        run = self.get(v.get("entity"), v.get("project"), v["runName"])
        if run is None:
            raise LookupError("run not found")
        run.rewinds.append((v["metricName"], v["metricValue"]))
        kept = [x for x in run._file("wandb-history.jsonl") if json.loads(x)["_step"] <= v["metricValue"]]
        run.lines["wandb-history.jsonl"] = dict(enumerate(kept))
        run.state = "running"
        return {"rewindRun": {"rewoundRun": self._bucket(run)}}

    def _run(self, run: Run) -> dict:
        keys = sorted({k for row in run.history for k in row})
        return {"id": run.storage_id, "projectId": "1", "tags": run.tags, "name": run.id, "displayName": run.name,
                "sweepName": run.sweep, "state": run.state, "config": json.dumps(run.raw_config), "group": run.group,
                "jobType": run.job_type, "commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00Z",
                "heartbeatAt": "2026-01-01T00:00:00Z", "description": None, "notes": run.notes,
                "systemMetrics": "{}", "summaryMetrics": json.dumps(run.raw_summary),
                "historyLineCount": self._count(run, "wandb-history.jsonl"),
                "user": {"name": ENTITY, "username": ENTITY},
                "historyKeys": {"lastStep": run.history[-1]["_step"] if run.history else -1,
                                "keys": {k: {"typeCounts": [{"type": "number", "count": 1}]} for k in keys}}}

    def op_Run(self, v, q):
        run = self.get(v["entity"], v["project"], v["name"])
        return {"project": {"run": run and self._run(run)}}

    def op_RunHistoryKeys(self, v, q):
        return self.op_Run(v, q)

    def op_RunParquetHistory(self, v, q):
        run = self.get(v["entity"], v["project"], v["runName"])
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": run.history}}}}

    def op_HistoryPage(self, v, q):
        run = self.get(v["entity"], v["project"], v["run"])
        rows = [json.dumps(r) for r in run.history if v["minStep"] <= r["_step"] < v["maxStep"]]
        return {"project": {"run": {"history": rows[:v.get("pageSize")]}}}

    def op_SampledHistoryPage(self, v, q):
        run, spec = self.get(v["entity"], v["project"], v["run"]), json.loads(v["spec"])
        keys = spec.get("keys")
        rows = [{k: r[k] for k in keys if k in r} for r in run.history] if keys else run.history
        return {"project": {"run": {"sampledHistory": [[r for r in rows if r]]}}}

    def op_RunFullHistory(self, v, q):
        rows = self.get(v["entity"], v["project"], v["name"]).history
        return {"project": {"run": {"history": [json.dumps(r) for r in rows[:v.get("samples")]]}}}

    def op_RunSampledHistory(self, v, q):
        one = lambda spec: self.op_SampledHistoryPage({**v, "run": v["name"], "spec": spec}, q)
        return {"project": {"run": {"sampledHistory": [
            one(s)["project"]["run"]["sampledHistory"][0] for s in v["specs"]]}}}

    def op_RunFiles(self, v, q):
        run = self.get(v["entity"], v["project"], v["name"])
        names = v.get("fileNames") or sorted(run.files)
        url = lambda n: f"{self.public_url}/storage/run/{run.entity}/{run.project}/{run.id}/{urllib.parse.quote(n)}"
        edges = [{"cursor": n, "node": {"id": n, "name": n, "url": url(n), "directUrl": url(n), "mimetype": "",
                  "sizeBytes": len(run.files.get(n, b"")), "updatedAt": "2026-01-01T00:00:00Z",
                  "md5": base64.b64encode(hashlib.md5(run.files.get(n, b"")).digest()).decode()}} for n in names]
        return {"project": {"internalId": "1", "run": {"fileCount": len(run.files), "files": {
            "edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}}}

    def op_Runs(self, v, q):
        hits = [r for r in self.runs.values() if r.project == v["project"] and r.entity == v["entity"]]
        if not hits:
            return {"project": None}
        return {"project": {"internalId": "1", "runCount": len(hits), "readOnly": False, "runs": {
            "edges": [{"node": self._run(r), "cursor": r.id} for r in hits],
            "pageInfo": {"endCursor": None, "hasNextPage": False}}}}

    # -- sweeps
    def op_UpsertSweep(self, v, q):
        entity, project = v.get("entityName") or ENTITY, v.get("projectName") or "uncategorized"
        sweep = next((s for s in self.sweeps.values() if s.node()["id"] == v.get("id")), None)
        if sweep is None:
            sweep = Sweep(f"sweep{len(self.sweeps) + 1:03}", entity, project, v["config"])
            sweep.waiting = combinations(v["config"])
            self.sweeps[sweep.id] = sweep
        sweep.text, sweep.state = v.get("config") or sweep.text, v.get("state") or sweep.state
        return {"upsertSweep": {"configValidationWarnings": [], "sweep": {"name": sweep.id, "project": {
            "id": "UHJvamVjdDox", "name": sweep.project, "entity": {"id": "RW50aXR5OjE=", "name": sweep.entity}}}}}

    def op_SweepWithRuns(self, v, q):
        sweep = self.sweeps.get(v["sweep"])
        found = sweep and (v.get("project"), v.get("entity") or ENTITY) == (sweep.project, sweep.entity)
        return {"project": {"sweep": sweep.node() if found else None}}

    def op_GetSweepState(self, v, q):
        return self.op_SweepWithRuns(v, q)

    def op_CreateAgent(self, v, q):
        id = f"QWdlbnQ6{len(self.agents) + 1}"
        self.agents[id] = self.sweeps[v["sweep"]]
        return {"createAgent": {"agent": {"id": id}}}

    def op_Heartbeat(self, v, q):
        """What the agent is to do: stop a run, begin one (which then is there, with its parameters), or end."""
        sweep, running = self.agents[v["id"]], json.loads(v["runState"])
        stopped = [r.id for r in sweep.runs if r.stopped and r.id in running]
        commands = [{"type": "stop", "run_id": id} for id in stopped]
        if not running and (again := next((r for r in sweep.runs if r.state == "preempted"), None)):
            again.state = "pending"
            commands.append(self._begin(again, "resume"))
        elif not running and sweep.waiting and sweep.state == "RUNNING":
            run = self.create(sweep.entity, sweep.project, f"{sweep.id}-{len(sweep.runs) + 1}")
            run.sweep, run.state, run.raw_config = sweep.id, "pending", sweep.waiting.pop(0)
            run.announced = run.raw_config
            sweep.runs.append(run)
            commands.append(self._begin(run, "run"))
        elif not running:
            sweep.state = "FINISHED"
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _begin(self, run: Run, kind: str) -> dict:
        import yaml
        program = yaml.safe_load(self.sweeps[run.sweep].text).get("program", "train.py")
        return {"type": kind, "run_id": run.id, "program": program, "args": run.announced, "logs": []}

    # -- views of a project
    def op_View(self, v, q):
        if not any((r.entity, r.project) == (v["entityName"], v["projectName"]) for r in self.runs.values()):
            return {"project": None}
        found = [view for view in self.views.values() if view["name"] == v["viewName"]
                 and (view["entityName"], view["projectName"]) == (v["entityName"], v["projectName"])]
        return {"project": {"allViews": {"edges": [
            {"node": {"id": view["id"], "displayName": view["displayName"], "spec": view["spec"]}} for view in found]}}}

    def op_UpsertView2(self, v, q):
        """As an id names a view, so does a name within its project."""
        known = [id for id, view in self.views.items() if view["name"] == v["name"] or id == v.get("id")]
        id = known[0] if known else f"Vmlldzo{len(self.views) + 1}"
        self.views[id] = {**v, "id": id}
        return {"upsertView": {"view": {"id": id, "name": v["name"]}, "inserted": not known}}

    def op_RunStoppedStatus(self, v, q):
        run = self.get(v.get("entityName"), v.get("projectName"), v["runId"])
        return {"project": {"run": {"stopped": bool(run and run.stopped)}}}

    def op_NotifyScriptableRunAlert(self, v, q):
        self.get(v["entityName"], v["projectName"], v["runName"]).alerts.append(
            {k: v.get(k) for k in ("title", "text", "severity", "waitDuration")})
        return {"notifyScriptableRunAlert": {"success": True}}

    def op_CreateRunFiles(self, v, q):
        run = self.get(v["entity"], v["project"], v["run"])
        url = lambda n: f"{self.public_url}/storage/run/{run.entity}/{run.project}/{run.id}/{urllib.parse.quote(n)}"
        return {"createRunFiles": {"runID": run.storage_id, "uploadHeaders": [],
                                   "files": [{"name": n, "uploadUrl": url(n)} for n in v["files"]]}}

    def op_MarkRunFilesUploaded(self, v, q):
        return {"markRunFilesUploaded": {"success": True}}

    # -- artifacts
    def op_CreateArtifact(self, v, q):
        i = v["input"]
        names = [a.get("artifactCollectionName") for a in i.get("aliases") or []]
        coll = (i.get("artifactCollectionNames") or names or [None])[0] or i.get("artifactCollectionName")
        same = [a for a in self.artifacts.values() if a["digest"] == i["digest"] and a["name"] == coll
                and a["state"] == "COMMITTED"]
        aid = same[0]["id"] if same else f"QXJ0aWZhY3Q6{len(self.artifacts) + 1}"
        art = self.artifacts.setdefault(aid, {
            "id": aid, "name": coll, "type": i.get("artifactTypeName"), "digest": i["digest"], "state": "PENDING",
            "aliases": [], "metadata": json.loads(i.get("metadata") or "{}"), "files": {}, "manifest": None,
            "description": i.get("description"), "run": i.get("runName"), "client_id": i.get("clientID"),
            "entity": i.get("entityName"), "project": i.get("projectName"), "step": i.get("historyStep"),
            "version": sum(a["name"] == coll for a in self.artifacts.values())})
        for al in [a["alias"] for a in i.get("aliases") or []]:
            for other in self.artifacts.values():
                if other is not art and other["name"] == coll and al in other["aliases"]:
                    other["aliases"].remove(al)
            if al not in art["aliases"]:
                art["aliases"].append(al)
        run = self.get(i.get("entityName"), i.get("projectName"), i.get("runName") or "")
        if run is not None and not any(a is art for a in run.artifacts):
            run.artifacts.append(art)
        return {"createArtifact": {"artifact": {"id": aid, "state": art["state"], "versionIndex": art["version"],
                                                "artifactSequence": {"id": f"seq-{coll}", "latestArtifact": None}}}}

    def op_ArtifactType(self, v, q):
        art = next((a for a in self.artifacts.values() if a["name"] == v["name"].split(":")[0]), None)
        return {"project": {"artifact": art and {"artifactType": {"name": art["type"]}}}}

    def _artifact(self, art: dict) -> dict:
        proj = {"id": "UHJvamVjdDox", "internalId": "1", "name": art["project"], "entity": {"name": art["entity"]}}
        coll = {"__typename": "ArtifactSequence", "name": art["name"], "project": proj}
        aliases = [{"__typename": "ArtifactAlias", "id": a, "alias": a, "artifactCollection": coll}
                   for a in art["aliases"] + [f"v{art['version']}"]]
        return {"__typename": "Artifact", "id": art["id"], "artifactSequence": coll, "versionIndex": art["version"],
                "artifactType": {"name": art["type"]}, "description": art["description"],
                "metadata": json.dumps(art["metadata"]), "ttlDurationSeconds": -1, "ttlIsInherited": False,
                "tags": [], "historyStep": art["step"], "state": art["state"], "size": sum(art["files"].values()),
                "digest": art["digest"], "commitHash": art["digest"][:20], "fileCount": len(art["files"]),
                "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "aliases": aliases}

    def op_ArtifactByID(self, v, q):
        return {"artifact": self._artifact(self.artifacts[v["id"]])}

    def op_ArtifactMembershipByName(self, v, q):
        name, _, alias = v["name"].partition(":")
        art = next((a for a in self.artifacts.values() if a["name"] == name and a["project"] == v["project"]
                    and (alias or "latest") in a["aliases"] + [f"v{a['version']}"]), None)
        body = art and self._artifact(art)
        return {"project": {"artifactCollectionMembership": art and {
            "__typename": "ArtifactCollectionMembership", "id": art["id"], "versionIndex": art["version"],
            "createdAt": "2026-01-01T00:00:00Z", "aliases": body["aliases"],
            "artifactCollection": body["artifactSequence"], "artifact": body}}}

    def op_CreateArtifactManifest(self, v, q):
        key = f"manifest/{v['artifactID']}"
        return {"createArtifactManifest": {"artifactManifest": {"id": key, "file": {
            "id": key, "uploadUrl": f"{self.public_url}/storage/{key}", "uploadHeaders": []}}}}

    def op_UpdateArtifactManifest(self, v, q):
        key = v["artifactManifestID"]
        return {"updateArtifactManifest": {"artifactManifest": {"id": key, "file": {
            "id": key, "uploadUrl": f"{self.public_url}/storage/{key}", "uploadHeaders": []}}}}

    def op_CreateArtifactFiles(self, v, q):
        edges = []
        for f in v["artifactFiles"]:
            key = f"artifact/{f['artifactID']}/{urllib.parse.quote(f['name'])}"
            edges.append({"node": {"storagePath": key, "uploadUrl": f"{self.public_url}/storage/{key}",
                                   "uploadHeaders": [], "uploadMultipartUrls": None,
                                   "artifact": {"id": f["artifactID"]}, "name": f["name"], "displayName": f["name"]}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def op_CommitArtifact(self, v, q):
        art = self.artifacts[v["artifactID"]]
        art["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": art["id"], "digest": art["digest"]}}}

    def op_UpdateArtifact(self, v, q):
        art = self.artifacts[v.get("artifactID") or v.get("id")]
        if v.get("metadata"):
            art["metadata"] = json.loads(v["metadata"])
        return {"updateArtifact": {"artifact": {"id": art["id"]}}}

    def op_UseArtifact(self, v, q):
        art = self.artifacts[v["artifactID"]]
        return {"useArtifact": {"artifact": self._artifact(art)}}

    def op_ClientIDMapping(self, v, q):
        aid = next((a["id"] for a in self.artifacts.values() if a["client_id"] == v["clientID"]), None)
        return {"clientIDMapping": {"serverID": aid} if aid else None}

    def op_ArtifactManifest(self, v, q):
        key = f"manifest/{v.get('artifact_id') or v.get('id')}"
        return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.public_url}/storage/{key}"}}}}

    def op_FetchArtifactManifest(self, v, q):
        return self.op_ArtifactManifest(v, q)

    def op_GetArtifactMembershipFileUrls(self, v, q):
        art = next(a for a in self.artifacts.values() if a["name"] == v["collection"]
                   and v["alias"] in a["aliases"] + [f"v{a['version']}"])
        files = self.op_ArtifactFileURLs({"id": art["id"]}, q)["artifact"]["files"]
        for edge in files["edges"]:
            edge["node"]["__typename"] = "File"
        files["pageInfo"]["__typename"] = "PageInfo"
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence",
                                                   "artifactMembership": {"files": files}}}}

    def op_ArtifactFileURLs(self, v, q):
        art = self.artifacts[v["id"]]
        return {"artifact": {"files": {"pageInfo": {"hasNextPage": False, "endCursor": None}, "edges": [
            {"node": {"name": n, "directUrl": f"{self.public_url}/storage/artifact/{art['id']}/{urllib.parse.quote(n)}"}}
            for n in art["files"]]}}}

    # -- FileStream
    def file_stream(self, entity: str, project: str, run_id: str, body: dict, client: str = "") -> tuple[int, dict]:
        if (status := self.fault("filestream")) is not None:
            return status, {"error": f"injected {status}"}
        with self.lock:
            run = self.get(entity, project, run_id)
            if run is None:
                return 404, {"error": f"run {run_id} not found"}
            run.streams.append(body)
            for name, part in (body.get("files") or {}).items():
                at = run.lines.setdefault(name, {})
                base = 0
                if client and name != "wandb-summary.json":  # mode="shared": every writer has its own offsets
                    base = run.writers.setdefault(client, len(run.writers)) * 10_000_000
                for n, line in enumerate(part["content"], base + part["offset"]):
                    if name == "wandb-history.jsonl" and at.get(n, line) != line:
                        run.overwritten += 1
                    at[n] = line
                if name == "wandb-summary.json" and part["content"]:
                    run.raw_summary = json.loads(part["content"][-1])
            if body.get("preempting"):
                run.state, run.preempting = "preempting", True
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
                run.state = "finished" if run.exit_code == 0 else "failed"
                if run.exit_code and run.preempting and run.sweep:
                    run.state = "preempted"
            return 200, {"limits": {}, "stopped": run.stopped}

    # -- storage
    def put(self, path: str, data: bytes) -> int:
        if (status := self.fault("storage")) is not None:
            return status
        kind, _, rest = path.partition("/")
        with self.lock:
            self.blobs[path] = data
            if kind == "run":
                e, p, i, name = rest.split("/", 3)
                self.get(e, p, i).files[urllib.parse.unquote(name)] = data
            elif kind == "artifact":
                aid, name = rest.split("/", 1)
                self.artifacts[aid]["files"][urllib.parse.unquote(name)] = len(data)
            elif kind == "manifest":
                self.artifacts[rest]["manifest"] = json.loads(data)
        return 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *a):  # quiet
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while n := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            out = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(out) if self.headers.get("Content-Encoding") == "gzip" else out

    def _send(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _handle(self) -> None:
        b, path = self.backend, urllib.parse.urlsplit(self.path).path
        body, kind, op, data, ctype = self._body(), "other", path, b"{}", "application/json"
        if path == "/graphql":
            kind = "graphql"
            status, answer, op = b.graphql(json.loads(body))
            data = json.dumps(answer).encode()
        elif m := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path):
            kind, op = "filestream", m.group(3)
            shared = self.headers.get("X-WANDB-ASYNC-CLIENT-ID") if self.headers.get("X-WANDB-USE-ASYNC-FILESTREAM") else ""
            status, answer = b.file_stream(*map(urllib.parse.unquote, m.groups()), json.loads(body), shared or "")
            data = json.dumps(answer).encode()
        elif path.startswith("/storage/"):
            kind, key = "storage", path[len("/storage/"):]
            if self.command == "PUT":
                status, data = b.put(key, body), b""
            else:
                found = b.blobs.get(key)
                status, data, ctype = (200, found, "application/octet-stream") if found is not None else (404, b"", ctype)
        elif m := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/(.+)", path):  # wandb.restore / File.download
            run = b.get(*map(urllib.parse.unquote, m.groups()[:3]))
            found = run and run.files.get(urllib.parse.unquote(m.group(4)))
            kind, status, data = "file", (200 if found is not None else 404), found or b""
        else:
            status = 404
        time.sleep(b.delays.get(kind, 0))
        b.requests.append((round(time.time() - b.t0, 3), kind, op, status))
        with contextlib.suppress(OSError):
            self._send(status, data, ctype)

    do_GET = do_POST = do_PUT = do_HEAD = _handle


class Gate:
    """A TCP door in front of a server: up (forward), down (refuse), hang (accept, never answer)."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.target, self.state = target, "up"
        self.conns: set[socket.socket] = set()
        self.port = port
        self.listener: socket.socket | None = None
        self.up()

    def up(self) -> None:
        self.close_conns()
        self.state = "up"
        if self.listener is None:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", self.port))
            s.listen(64)
            self.listener, self.port = s, s.getsockname()[1]
            threading.Thread(target=self._accept, args=(s,), daemon=True).start()

    def down(self) -> None:
        self.state = "down"
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
        self.close_conns()

    def hang(self) -> None:
        self.state = "hang"
        self.close_conns()

    def close_conns(self) -> None:
        for c in list(self.conns):
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)
            c.close()
        self.conns.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.conns.add(client)
            if self.state == "up":
                threading.Thread(target=self._pump, args=(client,), daemon=True).start()

    def _pump(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        self.conns.add(server)
        peer = {client: server, server: client}
        try:
            while True:
                for s in select.select([client, server], [], [])[0]:
                    data = s.recv(1 << 16)
                    if not data:
                        return
                    peer[s].sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            for s in (client, server):
                self.conns.discard(s)
                s.close()


class WandbServer:
    def __init__(self, *, port: int = 0) -> None:
        self.backend = Backend()
        self._port = port
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "WandbServer":
        handler = type("Handler", (_Handler,), {"backend": self.backend})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._stack.callback(self._server.server_close)
        self._stack.callback(self._server.shutdown)
        backend_port = self._server.server_address[1]
        self._api, self._storage = Gate(backend_port, self._port), Gate(backend_port)
        self._stack.callback(self._api.down)
        self._stack.callback(self._storage.down)
        self.url = f"http://127.0.0.1:{self._api.port}"
        self.backend.public_url = f"http://127.0.0.1:{self._storage.port}"
        self.home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wandb-server-"))
        return self

    def __exit__(self, *exc) -> None:
        self._stack.close()

    # -- for the client under test
    def env(self, **extra: str) -> dict[str, str]:
        """A clean environment for a subprocess that uses wandb ONLINE against this server."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        env.update(HOME=self.home, WANDB_BASE_URL=self.url, WANDB_API_KEY=API_KEY, WANDB_MODE="online",
                   WANDB_ERROR_REPORTING="false", NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost",
                   WANDB__FILE_STREAM_TRANSMIT_INTERVAL="1", PYTHONUNBUFFERED="1")
        env.update(extra)
        return env

    def exec(self, cmd: list[str], check: bool = True, **kw) -> subprocess.CompletedProcess:
        extra = kw.pop("env", {})
        return subprocess.run(cmd, env=self.env(**extra), check=check, **kw)

    # -- what was recorded
    @property
    def runs(self) -> list[Run]:
        return list(self.backend.runs.values())

    def run(self, run_id: str | None = None) -> Run:
        runs = [r for r in self.runs if run_id in (None, r.id, r.name)]
        if len(runs) != 1:
            raise LookupError(f"{len(runs)} runs match {run_id!r}: {[r.id for r in self.runs]}")
        return runs[0]

    @property
    def requests(self):
        return self.backend.requests

    @property
    def unknown(self):
        return self.backend.unknown

    def ops(self, kind: str | None = None) -> list[str]:
        return [op for _, k, op, _ in self.requests if kind in (None, k)]

    def dump(self) -> dict:
        return {"runs": [r.dump() for r in self.runs], "unknown": [op for op, _ in self.unknown]}

    # -- faults and stubs
    def down(self) -> None:
        self._api.down(), self._storage.down()

    def hang(self) -> None:
        self._api.hang(), self._storage.hang()

    def up(self) -> None:
        self._api.up(), self._storage.up()

    def fail(self, kind: str, status: int = 500, times: int = -1) -> dict:
        fault = {"kind": kind, "status": status, "times": times}
        self.backend.faults.append(fault)
        return fault

    def heal(self) -> None:
        self.backend.faults.clear()
        self.backend.delays.clear()

    def delay(self, kind: str, seconds: float) -> None:
        self.backend.delays[kind] = seconds

    def stop_run(self, run_id: str) -> None:
        self.run(run_id).stopped = True

    def seed_run(self, run_id: str, *, project: str, entity: str = ENTITY, history: list[dict] = (), config: dict = {},
                 summary: dict | None = None, state: str = "crashed", tags: list[str] = (), name: str = "") -> Run:
        """A run that is already on the server (for resume='must'/'allow'/'never', rewind, sync)."""
        with self.backend.lock:
            run = self.backend.create(entity, project, run_id)
            rows = [{"_step": i, "_runtime": float(i), "_timestamp": self.backend.t0 + i, **row}
                    for i, row in enumerate(history)]
            run.lines["wandb-history.jsonl"] = {i: json.dumps(r) for i, r in enumerate(rows)}
            run.raw_config = {k: {"value": v} for k, v in config.items()}
            run.raw_config["_wandb"] = {"value": {"t": {"1": [1]}, "m": []}}
            run.raw_summary = summary if summary is not None else {k: v for r in rows for k, v in r.items()}
            run.state, run.tags, run.name = state, list(tags), name or run_id
            run.upserts.append({"seeded": True})
            return run


# ----------------------------------------------------------------------------- command line
DEMO = '''
import numpy as np, wandb
with wandb.init(project="demo", id="demo1", config={"lr": 1e-3}, tags=["t"]) as run:
    run.define_metric("val/loss", summary="min")
    for step in range(3):
        run.log({"train/loss": 1 / (step + 1), "lr": 1e-3}, step=step)
    mask = np.zeros((8, 8), dtype=np.uint8); mask[2:5] = 1
    run.log({"val/loss": .5, "img": wandb.Image(np.zeros((8, 8, 3), np.uint8), masks={
        "true": {"mask_data": mask, "class_labels": {0: "bg", 1: "fg"}}})}, step=3)
    art = wandb.Artifact("model", type="model"); open("best.pt", "wb").write(b"weights"); art.add_file("best.pt")
    run.log_artifact(art, aliases=["best", "latest"])
'''


def demo() -> int:
    with WandbServer() as h, tempfile.TemporaryDirectory() as cwd:
        pathlib.Path(cwd, "train.py").write_text(DEMO)
        h.exec([sys.executable, "train.py"], cwd=cwd)
        run = h.run("demo1")
        print(json.dumps(run.dump(), indent=1))
        assert not h.unknown, h.unknown
        assert [r["_step"] for r in run.history] == [0, 1, 2, 3] and run.state == "finished"
        assert run.summary["val/loss"] == {"min": 0.5} and run.config == {"lr": 1e-3}
        assert sorted(run.artifacts[0]["aliases"]) == ["best", "latest"] and run.artifacts[0]["files"] == {"best.pt": 7}
        print("requests:", len(h.requests))
        for row in run.history:
            print({k: v for k, v in row.items() if not k.startswith(("_run", "_time"))})
    return 0


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = p.add_subparsers(dest="cmd", required=True)
    sub.add_parser("demo")
    s = sub.add_parser("serve")
    s.add_argument("--port", type=int, default=0)
    e = sub.add_parser("exec")
    e.add_argument("--dump")
    e.add_argument("argv", nargs=argparse.REMAINDER)
    a = p.parse_args()
    if a.cmd == "demo":
        return demo()
    with WandbServer(port=getattr(a, "port", 0)) as h:
        if a.cmd == "serve":
            print(f"export WANDB_BASE_URL={h.url} WANDB_API_KEY={API_KEY} WANDB_ERROR_REPORTING=false", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            print(json.dumps(h.dump(), indent=1))
            return 0
        argv = a.argv[1:] if a.argv[:1] == ["--"] else a.argv
        rc = h.exec(argv, check=False).returncode
        text = json.dumps(h.dump(), indent=1)
        pathlib.Path(a.dump).write_text(text) if a.dump else print(text)
        return rc


if __name__ == "__main__":
    sys.exit(main())
