"""Holds docker-compose.yml against the binaries, the Dockerfile, .env.example and itself. Called by deploy/check-compose.

    check_compose.py check RENDERED BINARIES     every rule below; RENDERED is the file as docker-compose understood it
    check_compose.py services RENDERED FOLDER FROM=TO…   what of ours it runs, for a shell: FOLDER/order has the names, in
                                                 the order of starting; FOLDER/NAME.command an argument a line, FOLDER/NAME.env a setting
                                                 a line, in which each FROM is replaced by its TO

Every rule that does not hold is printed; it exits with 1 if there is one.
"""

import os
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = {"producer", "processor", "sink-s3", "sink-opensearch", "schemas", "headway"}
# Servers without a health check, and why nothing waits for them.
UNWATCHED = {"console": "its image has no shell to count on, and it is only looked at"}
# Ports that these images listen on without being told to.
LISTENS = {"redpanda": {9644}, "minio": {9000}}

faults = []


def rule(holds, text):
    if not holds:
        faults.append(text)


def words(value):
    return value.split() if isinstance(value, str) else list(value or [])


def command(service):
    return words(service.get("entrypoint")) + words(service.get("command"))


def environment(service):
    found = service.get("environment") or {}
    if isinstance(found, list):
        found = dict(item.split("=", 1) for item in found)
    return {key: str(value) for key, value in found.items()}


def is_ours(service):
    return "build" in service


def depends(service):
    found = service.get("depends_on") or {}
    return found if isinstance(found, dict) else {name: {"condition": "service_started"} for name in found}


def all_depends(services, name, seen=None):
    seen = set() if seen is None else seen
    for other in depends(services[name]):
        if other not in seen:
            seen.add(other)
            all_depends(services, other, seen)
    return seen


def port_pairs(service):
    """(address, host port, container port) of what a service publishes."""
    for port in service.get("ports") or []:
        if isinstance(port, dict):
            yield port.get("host_ip", ""), str(port.get("published", "")), int(port["target"])
        else:
            parts = str(port).split("/")[0].split(":")
            yield ":".join(parts[:-2]), parts[-2] if len(parts) > 1 else "", int(parts[-1])


def listening(name, service):
    flags = " ".join(command(service))
    found = {int(port) for port in re.findall(r"0\.0\.0\.0:(\d+)", flags)} | {target for *_, target in port_pairs(service)}
    return found | LISTENS.get(name, set())


def is_job(service):
    return service.get("restart") == "no"


def check_every(services):
    published = {}
    for name, service in services.items():
        image = service.get("image", "")
        rule(re.search(r":[^/:]+$", image) and not image.endswith(":latest"), f"{name}: the image {image!r} is not pinned")
        rule("restart" in service, f"{name}: no restart policy")
        for address, host_port, _ in port_pairs(service):
            rule(address == "127.0.0.1", f"{name}: port {host_port} is published beyond this machine")
            rule(host_port not in published, f"{name}: port {host_port} is also {published.get(host_port)}'s")
            published[host_port] = name
        test = (service.get("healthcheck") or {}).get("test")
        if is_ours(service):
            rule(is_job(service) == (test == ["NONE"]), f"{name}: what runs has the image's health check, what ends has none")
        elif not is_job(service):
            rule(test or name in UNWATCHED, f"{name}: no health check")
        for other, how in depends(service).items():
            condition = how.get("condition")
            target = services[other]
            if condition == "service_healthy":
                watched = (target.get("healthcheck") or {}).get("test") or is_ours(target)
                rule(watched and not is_job(target), f"{name}: waits for {other} to be healthy, which has no health check")
            elif condition == "service_completed_successfully":
                rule(is_job(target), f"{name}: waits for {other} to end, which is started again and again")
            else:
                rule(False, f"{name}: waits for {other} to be started only")
        check_addresses(services, name, service)


def check_addresses(services, name, service):
    """Whoever names another service names a port that it listens on, and waits for it."""
    texts = list(environment(service).values()) + command(service)
    for host, port in re.findall(r"(?<![\w.-])([a-z][a-z0-9-]*):(\d+)\b", " ".join(texts)):
        if host not in services:
            rule(host == "localhost", f"{name}: there is no service {host} (…{host}:{port})")
            continue
        rule(int(port) in listening(host, services[host]), f"{name}: {host} does not listen on {port}")
        waits = host == name or host in all_depends(services, name) or "profiles" in service
        rule(waits, f"{name}: uses {host} without waiting for it")


def check_ours(name, service, binaries):
    line = command(service) or ["headway", "--help"]
    rule(line[0] in OURS, f"{name}: {line[0]} is no binary of ours")
    if line[0] not in OURS:
        return
    settings = environment(service)
    wanted = {key for key in settings if key.startswith("HEADWAY_")}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEADWAY_")}
    # The tools print no configuration; the keys are the same for all binaries.
    asked = [line[0] if line[0] != "headway" else "processor", "--print-config"]
    run = subprocess.run(
        [str(binaries / asked[0]), *asked[1:]], env=clean | settings, capture_output=True, text=True, check=False
    )
    rule(run.returncode == 0, f"{name}: {' '.join(asked)} refuses its environment:\n{run.stderr}")
    for key in wanted if run.returncode == 0 else []:
        rule(re.search(rf"# environment {key}$", run.stdout, re.M), f"{name}: {key} is set, but --print-config does not show it")
        value = settings[key]
        if value.startswith("/usr/share/headway/"):
            rule(from_checkout(value), f"{name}: {key} names {value}, which the Dockerfile does not put there")
    # --help after all that the command says: an unknown subcommand or flag is an error.
    run = subprocess.run([str(binaries / line[0]), *line[1:], "--help"], env=clean, capture_output=True, text=True, check=False)
    rule(run.returncode == 0, f"{name}: {' '.join(line)} is not understood:\n{run.stderr}")


def from_checkout(path):
    """Whether a COPY of the Dockerfile puts a file of the checkout at this path of the image."""
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[0] == "COPY" and path.startswith(parts[2].rstrip("/") + "/"):
            inside = path[len(parts[2].rstrip("/")) + 1 :]
            if (ROOT / parts[1] / inside).is_file():
                return True
    return False


def check_examples():
    """.env.example lists every variable of the file once, with the value that holds without it."""
    code = "\n".join(line for line in (ROOT / "docker-compose.yml").read_text().splitlines() if not line.strip().startswith("#"))
    used = {}
    for name, value in re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):-([^}]*)\}", code):
        rule(used.setdefault(name, value) == value, f"${{{name}}} has two defaults")
    rule(not re.findall(r"(?<!\$)\$\{[A-Z0-9_]+\}|(?<!\$)\$[A-Z]", code), "a variable has no default")
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    listed = dict(line.split("=", 1) for line in lines)
    rule(len(listed) == len(lines), ".env.example names a variable twice")
    for name in used.keys() | listed.keys():
        rule(used.get(name) == listed.get(name), f"{name}: {used.get(name)!r} in docker-compose.yml, {listed.get(name)!r} in .env.example")


def in_order(services):
    """The names, each behind those that it waits for."""
    done = []
    while len(done) < len(services):
        done += [name for name in services if name not in done and set(depends(services[name])) <= set(done)]
    return done


def write_services(services, folder, replaced):
    ours = [name for name in in_order(services) if is_ours(services[name])]
    for name in ours:
        settings = "".join(f"{key}={value}\n" for key, value in environment(services[name]).items())
        for old, new in replaced:
            settings = settings.replace(old, new)
        # docker-compose prints $$ for a dollar that it leaves alone.
        (folder / f"{name}.env").write_text(settings.replace("$$", "$"))
        (folder / f"{name}.command").write_text("".join(f"{word}\n" for word in command(services[name])))
    started = [name for name in ours if "profiles" not in services[name]]
    (folder / "order").write_text("".join(f"{name} {'job' if is_job(services[name]) else 'service'}\n" for name in started))


def main():
    services = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())["services"]
    if sys.argv[1] == "services":
        write_services(services, pathlib.Path(sys.argv[3]), [pair.split("=", 1) for pair in sys.argv[4:]])
        return
    check_every(services)
    for name, service in services.items():
        if is_ours(service):
            check_ours(name, service, pathlib.Path(sys.argv[3]))
    check_examples()
    for fault in faults:
        print(f"docker-compose.yml: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"docker-compose.yml: {len(services)} services hold against the binaries")


main()
