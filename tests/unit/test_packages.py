"""Further packages beside transformers: both sides of each rule."""

from __future__ import annotations

import pytest

from extended_dlc.decisions.packages import check_packages

TOOLKIT = "sagemaker-huggingface-inference-toolkit==2.6.0"


def test_the_range_of_the_release_itself_decides() -> None:
    assert check_packages(["huggingface_hub==1.31.0", "tokenizers==0.23.1"], "5.23.0", "native") == ()
    with pytest.raises(ValueError, match=r"does not go with transformers 5\.23\.0, which asks for >=1\.31\.0,<3\.0"):
        check_packages(["huggingface_hub==0.30.0"], "5.23.0", "native")


def test_another_transformers_is_refused_and_the_same_passes() -> None:
    assert check_packages(["transformers==5.23.0", "transformers>=5"], "5.23.0", "native") == ()
    with pytest.raises(ValueError, match=r"is not the image's transformers 5\.23\.0"):
        check_packages(["transformers==4.57.6"], "5.23.0", "native")


def test_what_was_measured_to_fail_is_refused_and_what_was_measured_to_work_passes() -> None:
    assert check_packages([TOOLKIT], "4.57.6", "stock") == ()
    with pytest.raises(ValueError, match=r"transformers 5\.23\.0: it imports is_tf_available .* \(measured: "):
        check_packages([TOOLKIT], "5.23.0", "stock")
    with pytest.raises(ValueError, match="pkg_resources"):
        check_packages(["setuptools==82.0.0"], "4.57.6", "stock")


def test_what_only_the_stock_server_needs_does_not_matter_to_the_native_one() -> None:
    assert check_packages([TOOLKIT, "setuptools==82.0.0"], "5.23.0", "native") == ()


def test_what_was_not_measured_is_said_and_what_nobody_knows_passes() -> None:
    (note,) = check_packages(["sagemaker-huggingface-inference-toolkit==2.5.0"], "4.35.0", "stock")
    assert "was not measured with transformers 4.35.0" in note
    assert check_packages(["pydub==0.25.1", "librosa"], "5.23.0", "native") == ()


def test_what_is_no_requirement_is_said() -> None:
    with pytest.raises(ValueError, match=r"cannot be read: write it as 'package==1\.2\.3'"):
        check_packages(["two words"], "5.23.0", "native")
