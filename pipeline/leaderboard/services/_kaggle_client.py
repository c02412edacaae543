"""One call of Kaggle's official client: a request as JSON on stdin, the answer as JSON on stdout.

A process of its own, because importing the client authenticates and makes folders, without credentials it exits, it
waits for ever, it prints, with VERBOSE set even its headers, and it must be possible to end it. Needs no more than
the standard library and the client, and is run by its path, so that it starts at once.
"""

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PAGE = 100  # submissions asked for at a time


def main() -> None:
    """Answer {"answer": ...} or {"error": {...}}, without any credential in it."""
    for name in ("VERBOSE", "VERBOSE_OUTPUT"):  # with these the client prints what it sends
        os.environ.pop(name, None)
    request, said = json.load(sys.stdin), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        answer = attempt(request, said)
    json.dump(cleaned(answer), sys.stdout)


def attempt(request: dict, said: io.StringIO) -> dict:
    """What came of a request; an error with its HTTP status, None for no answer and 0 for no credentials."""
    import requests  # what the client speaks through

    try:
        import kaggle

        if not kaggle.api.config_values.get("auth_method"):  # importing tried it, and swallowed why not
            kaggle.api.authenticate()
        said.truncate(said.seek(0))
        return {"answer": CALLS[request["what"]](kaggle.api, request["competition"], said, *request["arguments"])}
    except SystemExit:
        return failed(0, "no credentials", source=source())
    except json.JSONDecodeError:
        return failed(None, "an answer that is no JSON")
    except requests.HTTPError as error:
        status, message = explained(error)
        return failed(status, message, wait(error.response), source() if status == 401 else None)
    except (requests.Timeout, TimeoutError):
        return failed(None, "no answer in time")
    except requests.RequestException as error:
        return failed(None, f"no connection ({reason(error)})")
    except (ImportError, OSError) as error:
        return failed(None, f"its client cannot be used: {error}")
    except Exception as error:  # what else an unexpected answer leads to
        return failed(None, f"an answer that cannot be understood ({type(error).__name__})")


def limits(api, competition: str, said) -> dict:
    got = api.competition_get_submission_limits(competition)
    return {name: getattr(got, name) for name in ("num_today", "num_total", "num_allowed_now", "limited_by_total")}


def submit(api, competition: str, said, file: str, description: str) -> dict:
    got = api.competition_submit(file, description, competition, quiet=True)
    not_taken = got.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE
    return {"message": got.message, "ref": got.ref, "failed": not_taken, "said": plain(said.getvalue())}


def listed(api, competition: str, said, page: int) -> list[dict]:
    return [fields(one) for one in api.competition_submissions(competition, page_number=page, page_size=PAGE) or ()]


def one(api, competition: str, said, ref: int) -> dict:
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

    request = ApiGetSubmissionRequest()
    request.ref = ref
    with api.build_kaggle_client() as client:
        return fields(client.competitions.competition_api_client.get_submission(request))


CALLS: dict[str, Callable] = {"limits": limits, "submit": submit, "list": listed, "get": one}


def fields(got) -> dict:
    """What we look at of a submission."""
    names = ("ref", "description", "error_description", "file_name", "public_score", "private_score")
    date = got.date.isoformat() + "+00:00" if got.date else ""
    return {**{name: getattr(got, name) for name in names}, "status": got.status.name, "date": date}


def failed(status: int | None, message: str, wait: float | None = None, source: str | None = None) -> dict:
    return {"error": {"status": status, "message": plain(message), "wait": wait, "source": source}}


def plain(text: str) -> str:
    """In one line, and without what follows the ? of an address, which may be a signature."""
    return " ".join(re.sub(r"(?<=\S)\?\S+", "?...", text).split())


def explained(error) -> tuple[int, str]:
    """Status and message of a refusal: those in its JSON, else the response's own."""
    try:
        told = error.response.json()
        return int(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return error.response.status_code, error.response.reason or "refused"


def wait(response) -> float | None:
    """Seconds that a response asks to wait: Retry-After, a number or a date."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def reason(error: BaseException) -> str:
    """The innermost cause, which is the shortest and has no address in it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__


def source() -> str | None:
    """Where the credentials are that were found."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    found = get_access_token_from_env()[1]
    files = {"access_token": "~/.kaggle/access_token"}
    if found:
        return files.get(found, found)
    return next((name for name in ("KAGGLE_KEY",) if os.environ.get(name)), None)


def secrets() -> list[str]:
    """Every credential that this process may know."""
    api = sys.modules.get("kaggle") and sys.modules["kaggle"].api
    known = [api.config_values.get(name) for name in ("token", "key")] if api else []
    known += [os.environ.get(name) for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    return [secret for secret in known if secret]


def cleaned(answer):
    """The same without credentials, whoever put them there, and without what a terminal would obey."""
    if isinstance(answer, dict):
        return {key: cleaned(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [cleaned(value) for value in answer]
    if isinstance(answer, str):
        for secret in secrets():
            answer = answer.replace(secret, "***")
        return "".join(char if char.isprintable() else " " for char in answer)
    return answer


if __name__ == "__main__":
    main()
