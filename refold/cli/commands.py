"""All commands, by what people want of them: the name, and the function that it runs.

Each is imported when it is used.
"""

COMMANDS: dict[str, dict[str, str]] = {
    "See what there is": {
        "status": "refold.cli.status:status",
        "experiments": "refold.cli.lists:experiments",
        "runs": "refold.cli.lists:runs",
        "tasks": "refold.cli.lists:tasks",
        "workers": "refold.cli.lists:workers",
        "requests": "refold.cli.lists:requests",
        "contexts": "refold.cli.lists:contexts",
        "pipelines": "refold.cli.lists:pipelines",
        "actor-tasks": "refold.cli.lists:actor_tasks",
        "show": "refold.cli.show:show",
    },
    "Ask what happened, and why": {
        "log": "refold.cli.log:log",
        "history": "refold.cli.history:history",
        "why": "refold.cli.why:why",
        "diff": "refold.cli.diff:diff",
        "step": "refold.cli.step:step",
        "plot": "refold.cli.plot:plot",
    },
    "Ask something of a run": {
        "stop": "refold.cli.control:stop",
        "resume": "refold.cli.control:resume",
        "clone": "refold.cli.control:clone",
        "delete": "refold.cli.control:delete",
    },
    "Look after the store": {
        "doctor": "refold.cli.doctor:doctor",
        "verify": "refold.cli.maintain:verify",
        "rebuild": "refold.cli.maintain:rebuild",
        "recover": "refold.cli.maintain:recover",
        "fork": "refold.cli.maintain:fork",
        "copy": "refold.cli.maintain:copy",
        "export": "refold.cli.export:export",
        "import": "refold.cli.export:import_",
    },
}
