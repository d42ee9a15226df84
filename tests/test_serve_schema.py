"""The description of the API is true: schemathesis asks all that it allows, and some that it does not."""

import json
import subprocess
import sys

import pytest

from fewshot import FewShotModel
from fewshot.serve import schemas as models
from tests.serving import files, pictures, process, running, taught

TEMPLES, FLOWERS = pictures(8)[:8], pictures(8)[8:]

#: Images and embeddings that a classifier can read are more than JSON Schema can say.
CONFIG = """
[[operations]]
include-path-regex = "/v1/(predict|embed|suggest|classes|examples)$"
include-method = "POST"
checks.positive_data_acceptance.enabled = false
"""


def undescribed(value, schema, schemas, place=""):
    """The places of what a body holds and its schema does not name."""
    schema = next((one for one in schema.get("anyOf", ()) if one != {"type": "null"}), schema)
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(value, list):
        return [one for item in value for one in undescribed(item, schema.get("items", {}), schemas, f"{place}[]")]
    if not isinstance(value, dict) or schema.get("additionalProperties"):
        return []
    named, found = schema.get("properties", {}), []
    for name, item in value.items():
        inside = f"{place}.{name}"
        found += undescribed(item, named[name], schemas, inside) if name in named else [inside]
    return found


def test_all_that_is_answered_is_described(tmp_path):
    image = files(FLOWERS[0], b"no image")
    with running(taught(tmp_path / "model", 4)) as client:
        described = client.get("/v1/openapi.json").json()
        (example,) = client.get("/v1/examples?limit=1").json()["examples"]
        for method, path, sent in (
            ("GET", "/v1/model", {}),
            ("POST", "/v1/predict?coverage=0.5&neighbours=1&explain=true&embeddings=true", {"files": image}),
            ("POST", "/v1/embed", {"files": image}),
            ("POST", "/v1/suggest", {"files": image}),
            ("GET", "/v1/classes", {}),
            ("POST", "/v1/classes", {"files": image, "data": {"name": "new"}}),
            ("POST", "/v1/examples", {"files": files(TEMPLES[0]), "data": {"class": "new"}}),
            ("GET", "/v1/examples", {}),
            ("PATCH", f"/v1/examples/{example['id']}", {"json": {"class": "new"}}),
            ("GET", f"/v1/examples/{example['id']}/thumbnail", {}),
            ("POST", "/v1/undo", {}),
            ("GET", "/v1/history", {}),
            ("GET", "/v1/check", {}),
            ("GET", "/v1/suspects", {}),
            ("GET", "/v1/rejection?reject=balanced", {}),
            ("GET", "/v1/model/download", {}),
            ("GET", "/health/ready", {}),
            ("GET", "/metrics", {}),
            ("GET", "/metrics", {"headers": {"Host": "stranger.example"}}),
            ("GET", "/health/live", {"headers": {"Host": "stranger.example"}}),
        ):
            answer = client.request(method, path, **sent)
            template = path.partition("?")[0].replace(example["id"], "{example}")
            operation = described["paths"][template][method.lower()]
            told = operation["responses"][str(answer.status_code)]
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in told["content"], path
            if kind == "application/json":
                schema = told["content"][kind]["schema"]
                assert not undescribed(answer.json(), schema, described["components"]["schemas"]), path
                assert ("ETag" in told.get("headers", {})) == ("version" in answer.json()) == ("ETag" in answer.headers)


def examples_of(content, schemas):
    """The examples of a body, that of the route before those of its model, and the name of the model."""
    name = content["schema"]["$ref"].rpartition("/")[2]
    return [content["example"]] if "example" in content else schemas[name].get("examples", []), name


def keys_of(value, place=""):
    """The places of all that a value holds; items of lists have one place."""
    if isinstance(value, list):
        return set().union(*(keys_of(item, f"{place}[]") for item in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{place}.{name}"} | keys_of(item, f"{place}.{name}") for name, item in value.items()))


def test_every_answer_of_json_has_an_example_that_fits_its_model(tmp_path):
    with running(tmp_path / "model") as client:
        described = client.get("/v1/openapi.json").json()
    schemas, seen = described["components"]["schemas"], set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if (content := response.get("content", {}).get("application/json")) is None:
                    continue
                examples, name = examples_of(content, schemas)
                assert examples, f"{method} {path} has no example of {name}, {status}"
                for example in examples:
                    assert not undescribed(example, content["schema"], schemas), name
                    getattr(models, name).model_validate_json(json.dumps(example), strict=True)
                seen |= {name} if status.startswith("2") else set()
    assert len(seen) == 13, seen


def test_examples_of_answers_have_the_keys_of_real_ones(tmp_path):
    bad, all_of_it = b"no image", "explain=true&embeddings=true"
    with running(tmp_path / "model") as client:
        described = client.get("/v1/openapi.json").json()
        schemas = described["components"]["schemas"]

        def compare(method, path, status, which=0, **sent):
            answer = client.request(method, path, **sent)
            assert answer.status_code == status, answer.text
            content = described["paths"][path.partition("?")[0]][method.lower()]["responses"][str(status)]["content"]
            example = examples_of(content["application/json"], schemas)[0][which]
            assert keys_of(example) == keys_of(answer.json()), path

        image, mixed = {"files": files(FLOWERS[-1])}, {"files": files(FLOWERS[-1], bad)}
        compare("POST", "/v1/classes", 201, files=files(*TEMPLES[:4], bad), data={"name": "temple"})
        compare("POST", "/v1/classes", 201, files=files(*FLOWERS[:4], TEMPLES[5], bad), data={"name": "flower"})
        compare("POST", "/v1/classes", 200, files=files(FLOWERS[0]), data={"name": "temple"})
        compare("POST", "/v1/examples", 200, files=files(FLOWERS[1], TEMPLES[0]), data={"class": "temple"})
        compare("POST", "/v1/predict?coverage=0.5&neighbours=1", 200, **mixed)
        compare("POST", f"/v1/predict?coverage=0.5&neighbours=1&{all_of_it}", 200, 1, **mixed)
        compare("POST", "/v1/embed", 200, **mixed)
        compare("POST", "/v1/suggest", 200, **image)
        for path in ("model", "classes", "examples", "history", "check", "suspects", "rejection?reject=auto"):
            compare("GET", f"/v1/{path}", 200)
        compare("PUT", "/v1/rejection", 200, json={"reject": "auto"})
        compare("POST", "/v1/undo", 200)
        for path in ("live", "ready"):
            compare("GET", f"/health/{path}", 200)
            content = described["paths"][f"/health/{path}"]["get"]["responses"]["200"]["content"]["application/json"]
            assert examples_of(content, schemas)[0] == [client.get(f"/health/{path}").json()]


def test_the_example_of_a_match_has_the_keys_of_a_real_one(tmp_path):
    with running(taught(tmp_path / "model", learner="dn4")) as client:
        described = client.get("/v1/openapi.json").json()
        sent = files(FLOWERS[-1], b"no image")
        answer = client.post("/v1/predict?coverage=0.5&neighbours=1&matches=1", files=sent).json()
    content = described["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    schemas = described["components"]["schemas"]
    assert keys_of(examples_of(content, schemas)[0][2]) == keys_of(answer)
    assert not undescribed(answer, content["schema"], schemas)


def test_the_examples_of_forms_are_answered(tmp_path):
    with running(taught(tmp_path / "model", 4)) as client:
        paths = client.get("/v1/openapi.json").json()["paths"]
        client.patch("/v1/classes/temple", json={"name": "heron"})
        tried = 0
        for path, operations in paths.items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            if "multipart/form-data" not in content:
                continue
            sent = dict(content["multipart/form-data"]["schema"]["example"])
            images = files(*(one.encode("ascii") for one in sent.pop("images")))
            assert client.post(path, files=images, data=sent).status_code == 200, path
            assert client.post(path, json=content["application/json"]["schema"]["example"]).status_code == 200, path
            tried += 1
        assert tried == 5


@pytest.mark.parametrize("token", [None, "a secret of some length"])
def test_a_generated_client_knows_the_token_and_the_version_that_a_change_is_meant_for(tmp_path, token):
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    with running(tmp_path / "model", token=token, headers=sent) as client:
        described = client.get("/v1/openapi.json").json()
        assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        assert ({} in described["security"]) == (token is None)
        assert described["paths"]["/health/ready"]["get"]["security"] == []
        operations = [one for path in described["paths"].values() for one in path.values()]
        assert len({one["operationId"] for one in operations}) == len(operations)
        assert described["paths"]["/v1/predict"]["post"]["operationId"] == "predict"
        changes = [one for one in operations if any(p["name"] == "if-match" for p in one.get("parameters", []))]
        assert {"learn_class", "undo", "remove_example", "load"} <= {one["operationId"] for one in changes}


@pytest.mark.slow
def test_answers_are_as_described(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    folder = taught(tmp_path / "model")
    with process(folder, "--log-level", "warning") as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run"]
        asked = [
            f"{server.url}v1/openapi.json",
            "--seed",
            "1",
            "--exclude-path",
            "/v1/model/load",
            "--max-examples",
            "30",
        ]
        ran = subprocess.run([*command, *asked], capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0, ran.stdout[-8000:]
        assert not [line for line in server.log if '"level": "error"' in line]
    FewShotModel.load(folder)
