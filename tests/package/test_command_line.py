"""`tcm-kernels` and `python -m tcm_kernels`: what a person sees who types them."""

import re
import subprocess
import sys

import pytest
import torch
from checkout import ROOT

import tcm_kernels
from tcm_kernels import cli, dispatch, doctor


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "tcm_kernels", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"tcm_kernels {tcm_kernels.__version__}"


def test_no_command_is_an_error_that_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert "tcm-kernels" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("doctor", "demo", "evaluate", "calibrate"))


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m tcm_kernels doctor | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")  # what fits into the pipe is no error at all


def test_doctor_tells_of_every_backend_whether_it_runs(capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in dispatch.BACKENDS:
        reason = dispatch.why_not_here(name)
        expected = "ready" if reason is None else f"cannot run: {reason}"
        assert re.search(rf"^  {name} +{re.escape(expected)}", shown, re.MULTILINE)
    for subject in ("python", "torch", "triton", "CUDA", "compiler", "CPU"):
        assert re.search(rf"^  {subject} +\S", shown, re.MULTILINE)
    assert torch.__version__ in shown


def test_doctor_gives_the_reason_of_a_backend_that_cannot_run(monkeypatch):
    monkeypatch.setattr(dispatch.module("cpu"), "why_not_here", lambda: "no such thing; install it")
    assert re.search(r"^  cpu +cannot run: no such thing; install it$", doctor.report(), re.MULTILINE)


def test_doctor_survives_a_machine_without_compiler_and_cpu_information(monkeypatch):
    def no_such_file(*_args, **_settings):
        raise FileNotFoundError

    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("builtins.open", no_such_file)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    environment = doctor.environment()
    assert environment["compiler"].startswith("none found")
    assert torch.backends.cpu.get_cpu_capability() in environment["CPU"]


def test_doctor_lists_cuda_devices_where_there_are_some(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Device {i}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert doctor.environment()["CUDA"] == "torch built for CUDA 13.0; Device 0, Device 1"


def test_the_version_is_that_of_the_citation_file():
    citation = ROOT / "CITATION.cff"
    assert f"\nversion: {tcm_kernels.__version__}\n" in citation.read_text(encoding="utf-8")
