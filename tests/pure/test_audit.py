"""What `make audit` makes of the answers of pip-audit and apt: never silence for what was not looked up."""

import json

import audit


def test_a_known_vulnerability_is_named_with_its_fix():
    package = {"name": "requests", "version": "2.19.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.20"]}]}
    answer = audit.read_pip_audit(json.dumps({"dependencies": [package, {"name": "a", "version": "1", "vulns": []}]}))
    assert (answer.checked, answer.unchecked) == (2, [])
    assert answer.known == ["requests 2.19.0: PYSEC-1, fixed in 2.20"]
    assert audit.code_of([answer]) == 1


def test_a_package_that_the_index_does_not_know_is_not_checked_rather_than_good():
    # Literally what pip-audit says, with exit code 0, where the index has no list of vulnerabilities.
    text = '{"dependencies": [{"name": "requests", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}'
    answer = audit.read_pip_audit(text)
    assert (answer.checked, answer.known, answer.unchecked) == (0, [], ["requests (Dependency not found on PyPI)"])
    assert audit.code_of([answer]) == 3


def test_an_update_that_an_image_lacks_is_known():
    text = (
        "Inst libssl3t64 [3.5.1-1] (3.5.4-1~deb13u1 Debian-Security:13/stable-security [amd64])\nConf libssl3t64 (x)\n"
    )
    answer = audit.read_apt(text, installed=90)
    assert answer.known == ["libssl3t64 3.5.1-1: 3.5.4-1~deb13u1 is out (Debian-Security:13/stable-security [amd64])"]
    assert audit.code_of([answer]) == 1


def test_an_image_that_lacks_no_update_is_good():
    assert audit.code_of([audit.read_apt("", installed=90)]) == 0


def test_something_known_counts_more_than_something_unchecked():
    answers = [audit.Answer(unchecked=["a"]), audit.Answer(known=["b 1: CVE"])]
    assert audit.code_of(answers) == 1
