"""Run a command whose notebooks get kernels that are forked, not started anew.

    python tests/warm_kernels.py pytest -n auto

Half of a smoke run goes into importing torch and the rest and into compiling UMAP, always the same.
That is done here, once, while the command begins, and a kernel is a fork of this process, with an
environment, a folder and a process group of its own, and the end of any other. Jupyter starts
`hand_over` below, which asks for a fork, waits for it and passes signals on. Without this script
kernels are started as always.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path

PRELOADED = """
    ipykernel.kernelapp matplotlib_inline.backend_inline ipywidgets anywidget pandas umap faiss h5py
    av scipy.stats sklearn.cluster sklearn.decomposition torch lightning_fabric kornia.augmentation
    distributed papermill vidhash_lab.plots vidhash_lab.widgets vidhash_lab.runs
    vidhash_lab.retrieval.code_space vidhash_lab.videos.extraction
"""
VARIABLE = "VIDHASH_LAB_WARM_KERNELS"  # path of the socket


def hand_over(arguments):
    """Ask for a kernel with these arguments, live and die with it -> its exit code."""
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    message = json.dumps(asked).encode()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ[VARIABLE])
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda number, _: line.send(bytes([number])))
        socket.send_fds(line, [len(message).to_bytes(8, "little")], [0, 1, 2])
        line.sendall(message)
        return (line.recv(1) or b"\1")[0]


def receive(line):
    """Read what was asked for -> dictionary, three descriptors."""
    head, descriptors, *_ = socket.recv_fds(line, 8, 3)
    with line.makefile("rb") as file:
        return json.loads(file.read(int.from_bytes(head, "little"))), descriptors


def become_kernel(asked, descriptors):
    """Turn this fork into the kernel that was asked for."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    watched = f"--IPKernelApp.parent_handle={os.getppid()}"  # when this script dies, so do forks
    arguments = [*asked["arguments"], watched]
    sys.argv, sys.path[0] = ["ipykernel_launcher", *arguments], ""
    import_module("ipykernel.kernelapp").IPKernelApp.launch_instance(argv=arguments)


def fork(line, others):
    """Fork for one request -> process id."""
    asked, descriptors = receive(line)
    if pid := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code = 1
    try:
        os.setsid()
        for other in (line, *others):
            other.close()
        become_kernel(asked, descriptors)
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def pass_on(pid, line):
    """Give a kernel the signal that its waiting program got; the last one if that is gone."""
    number = (line.recv(1) or bytes([signal.SIGKILL]))[0]
    with suppress(ProcessLookupError):  # it ends just now
        os.killpg(pid, number)


def serve(listener, command):
    """Fork kernels until the process `command` ends -> its exit code."""
    lines = {}
    while True:
        for line in select.select([listener, *lines.values()], [], [], 0.05)[0]:
            if line is listener:
                line, _ = listener.accept()
                lines[fork(line, [listener, *lines.values()])] = line
            else:
                (pid,) = (pid for pid, own in lines.items() if own is line)
                pass_on(pid, line)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == command.pid:
            return os.waitstatus_to_exitcode(status)
        if line := lines.pop(pid, None):
            with suppress(OSError), line:
                line.send(bytes([os.waitstatus_to_exitcode(status) & 255]))


def preload():
    """Import and compile what notebooks use."""
    # Forks have none of the threads that this process starts: no OpenMP, numba's own ones.
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "workqueue"}
    for name in PRELOADED.split():
        import_module(name)
    codes = import_module("numpy").random.default_rng(0).integers(0, 256, (300, 8), "uint8")
    import_module("vidhash_lab.retrieval.code_space").project(codes)
    gc.freeze()  # a fork's first collection would copy all of these pages, for 0.7 s


def main():
    """Run the command, preload meanwhile, serve."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        argv = [sys.executable, "-S", "-E", __file__, "--hand-over", "-f", "{connection_file}"]
        about = {"argv": argv, "display_name": "Python 3", "language": "python"}
        kernel.write_text(json.dumps(about))
        address = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            environment = os.environ | {VARIABLE: address, "JUPYTER_PATH": folder}
            with subprocess.Popen(sys.argv[1:], env=environment) as command:
                try:
                    preload()
                    return serve(listener, command)
                finally:
                    command.terminate()


if __name__ == "__main__":
    sys.exit(hand_over(sys.argv[2:]) if sys.argv[1] == "--hand-over" else main())
