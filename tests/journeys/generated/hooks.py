"""What the generated requests need to know of the shop, and what holds for every answer."""

import json
import os
import random

import schemathesis

IDS = json.loads(os.environ["FUZZ_IDS"])

# Texts of the libraries that the shop is made of, and secrets that are in its tables.
FORBIDDEN = json.loads(os.environ["FUZZ_FORBIDDEN"])


def replaced(value):
    """The body with every id of a variant exchanged, now and then, for one that exists."""
    if isinstance(value, dict):
        return {
            name: IDS["variant"] if name == "variant_id" and random.random() < 0.7 else replaced(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [replaced(inner) for inner in value]
    return value


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    # Of a generated id no operation knows more than that it is unknown.
    path = context.operation.path
    if not path_parameters or random.random() < 0.4:
        return path_parameters
    for root, known in IDS["paths"].items():
        if path.startswith(root):
            return {name: known for name in path_parameters}
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    return replaced(body)


@schemathesis.check
def says_nothing_that_is_not_for_clients(context, response, case):
    text = response.content.decode("utf-8", "replace")
    for word in FORBIDDEN:
        assert word not in text, f"{word!r} is in the answer"


@schemathesis.check
def fails_with_a_problem(context, response, case):
    if response.status_code >= 400 and case.method != "HEAD":
        kind = response.headers.get("content-type", [""])[0]
        assert kind == "application/problem+json", f"{response.status_code} is of type {kind!r}"
        problem = json.loads(response.content)
        assert problem["status"] == response.status_code and problem["code"] and problem["request_id"]
