"""The part of `curl` that the documentation uses, in Python: -i, -s, -X, -H, -d, -F and a URL."""

from __future__ import annotations

import argparse
import sys

import httpx


def main() -> None:
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("url")
    given = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in given.header)
    if given.data is not None and not any(name.lower() == "content-type" for name in headers):
        headers["content-type"] = "application/x-www-form-urlencoded"
    method = given.request or ("GET" if given.data is None else "POST")
    response = httpx.request(method, given.url, headers=headers, content=given.data, trust_env=False)
    if given.include:
        print(f"{response.http_version} {response.status_code} {response.reason_phrase}")
        for name, value in response.headers.items():
            print(f"{name}: {value}")
        print()
    sys.stdout.write(response.text)


if __name__ == "__main__":
    main()
