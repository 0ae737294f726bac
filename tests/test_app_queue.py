"""The app's queue: leases, heartbeats, retries, cancelling; and that only the lease's holder can end a job."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hemotorch.app import queue as queues
from hemotorch.app.database import Database, Row
from hemotorch.app.queue import MOST_LOSSES, TABLES, JobQueue, LeasedJob, LeaseLost
from hemotorch.app.schemas import AppJob, JobKind, JobState, Refusal
from hemotorch.errors import InputError

ALL = tuple(JobKind)
EFFECTS = "CREATE TABLE IF NOT EXISTS effect (job TEXT NOT NULL);"


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(Database(tmp_path, TABLES, EFFECTS))


def add(queue: JobQueue, kind: JobKind = JobKind.PREDICT, title: str = "outline") -> AppJob:
    return queue.add(kind, "{}", title, study="study-1", user="reader")


def lease(queue: JobQueue, token: str = "a", most: int = 9) -> LeasedJob:
    job = queue.lease(ALL, token, most)
    assert job is not None
    return job


def run_out(queue: JobQueue) -> None:
    """As if no heartbeat had come for long."""
    with queue.database.write() as connection:
        connection.execute("UPDATE job SET lease_until = 1")


def test_a_job_goes_from_waiting_to_done_with_what_it_changes(queue: JobQueue) -> None:
    assert queue.lease(ALL, "a", 9) is None
    added = add(queue)
    assert added.state == JobState.WAITING and added.created.endswith("Z")
    job = lease(queue)
    assert (job.id, job.attempts, job.study, job.user) == (added.id, 1, "study-1", "reader")
    assert queue.lease(ALL, "b", 9) is None
    queue.report(job, "outlining", 1, 3, "step")
    queue.add_problem(job, Refusal(what="no scan", where="a.txt"))
    shown = queue.get(job.id)
    assert (shown.state, shown.label, shown.done, shown.total) == (JobState.RUNNING, "outlining", 1, 3)
    with queue.finish(job) as connection:
        connection.execute("INSERT INTO effect VALUES (?)", (job.id,))
    shown = queue.get(job.id)
    assert shown.state == JobState.DONE and shown.problems[0].where == "a.txt" and shown.ended >= shown.started
    assert len(queue.database.rows("SELECT * FROM effect")) == 1


def test_what_fails_at_the_end_changes_nothing(queue: JobQueue) -> None:
    add(queue)
    job = lease(queue)
    with pytest.raises(ZeroDivisionError), queue.finish(job) as connection:
        connection.execute("INSERT INTO effect VALUES (?)", (job.id,))
        raise ZeroDivisionError
    assert queue.get(job.id).state == JobState.RUNNING
    assert queue.database.rows("SELECT * FROM effect") == []


def test_a_job_without_heartbeat_goes_to_another_worker_and_counts_once(queue: JobQueue) -> None:
    add(queue)
    first = lease(queue, "a")
    assert queue.renew(first) is False
    run_out(queue)
    queue.put_back_lost()
    second = lease(queue, "b")
    assert (second.id, second.attempts) == (first.id, 2)
    with pytest.raises(LeaseLost):
        queue.renew(first)
    with pytest.raises(LeaseLost), queue.finish(first):
        raise AssertionError("the block must not be entered")
    with queue.finish(second) as connection:
        connection.execute("INSERT INTO effect VALUES (?)", (second.id,))
    for late in (
        lambda: queue.fail(first, Refusal(what="late")),
        lambda: queue.stopped(first),
        lambda: queue.give_back(second),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert queue.get(first.id).state == JobState.DONE
    assert len(queue.database.rows("SELECT * FROM effect")) == 1


def test_a_job_whose_process_is_lost_again_and_again_fails_with_the_reason(queue: JobQueue) -> None:
    added = add(queue)
    for number in range(MOST_LOSSES):
        assert queue.get(added.id).state == JobState.WAITING
        lease(queue, f"lease-{number}")
        queue.lost(f"lease-{number}", "it was killed by SIGKILL")
    failed = queue.get(added.id)
    assert failed.state == JobState.FAILED and failed.problem is not None
    assert "3 times (it was killed by SIGKILL)" in failed.problem.what
    assert queue.retry(added.id).state == JobState.WAITING
    job = lease(queue)
    assert queue.get(job.id).problem is None
    queue.lost("a", "it was killed")  # the first loss of this round
    assert queue.get(added.id).state == JobState.WAITING


def test_cancelling(queue: JobQueue) -> None:
    waiting = add(queue)
    assert queue.cancel(waiting.id).state == JobState.CANCELLED
    assert queue.cancel(waiting.id).state == JobState.CANCELLED
    assert queue.lease(ALL, "a", 9) is None
    assert queue.retry(waiting.id).state == JobState.WAITING
    job = lease(queue)
    assert queue.cancel(job.id).state == JobState.RUNNING
    assert queue.renew(job) is True
    queue.stopped(job)
    assert queue.get(job.id).state == JobState.CANCELLED
    # One that is killed before it can stop was cancelled too.
    queue.retry(job.id)
    job = lease(queue, "c")
    queue.cancel(job.id)
    queue.lost("c", "it was killed")
    assert queue.get(job.id).state == JobState.CANCELLED


def test_done_jobs_are_not_done_again(queue: JobQueue) -> None:
    add(queue)
    job = lease(queue)
    with queue.finish(job):
        pass
    assert queue.retry(job.id).state == JobState.DONE
    assert queue.cancel(job.id).state == JobState.DONE
    queue.lost("a", "it was killed")
    assert queue.get(job.id).state == JobState.DONE


def test_what_a_person_waits_for_comes_first_and_no_more_run_than_may(queue: JobQueue) -> None:
    add(queue, JobKind.PREDICT, "first")
    add(queue, JobKind.PREDICT, "second")
    add(queue, JobKind.EXPORT_VERSION, "third")
    kinds = [JobKind.PREDICT, JobKind.EXPORT_VERSION]
    job = queue.lease(kinds, "a", 2)
    assert job is not None and job.kind == JobKind.EXPORT_VERSION
    second = queue.lease(kinds, "b", 2)
    assert second is not None and queue.get(second.id).title == "first"
    assert queue.lease(kinds, "c", 2) is None
    assert queue.lease([JobKind.TRAIN], "c", 2) is None


def test_a_stopped_job_goes_on_with_the_next_start_and_was_not_lost(queue: JobQueue) -> None:
    add(queue)
    for _ in range(MOST_LOSSES + 2):
        queue.give_back(lease(queue))
    assert queue.page().jobs[0].state == JobState.WAITING


def test_many_workers_take_each_job_once(queue: JobQueue) -> None:
    jobs = {add(queue).id for _ in range(40)}
    taken: list[str] = []

    def work(name: str) -> None:
        number = 0
        while (job := queue.lease(ALL, f"{name}-{number}", 99)) is not None:
            taken.append(job.id)
            number += 1
            with queue.finish(job):
                pass
        queue.database.close()

    threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(jobs)


def test_pages_and_unknown_jobs(queue: JobQueue) -> None:
    names = [add(queue, title=f"job {number}").id for number in range(5)]
    first = queue.page(limit=3)
    second = queue.page(cursor=first.next, limit=3)
    assert [job.id for job in first.jobs + second.jobs] == names[::-1] and second.next == ""
    assert queue.page(JobState.DONE).jobs == [] and len(queue.page(JobState.WAITING, "study-1").jobs) == 5
    assert queue.page(study="another").jobs == []
    for action in (queue.get, queue.cancel, queue.retry):
        with pytest.raises(InputError, match="no such job"):
            action("job-0")
    for cursor in ("x", "-1", "9" * 30, "٣"):
        with pytest.raises(InputError, match="no cursor"):
            queue.page(cursor=cursor)


def test_who_is_told_of_an_end(tmp_path: Path) -> None:
    ends: list[tuple[str, str]] = []

    def note(connection: object, row: Row) -> None:
        ends.append((row["title"], row["state"]))

    queue = JobQueue(Database(tmp_path, TABLES), note)
    for title in ("a", "b", "c"):
        add(queue, title=title)
    with queue.finish(lease(queue)):
        pass
    queue.fail(lease(queue), Refusal(what="no"))
    for _ in range(MOST_LOSSES):
        lease(queue, "z")
        queue.lost("z", "")
    assert ends == [("a", "done"), ("b", "failed"), ("c", "failed")]


def test_no_more_problems_are_kept_than_can_be_read(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MOST_PROBLEMS", 3)
    add(queue)
    job = lease(queue)
    for number in range(5):
        queue.add_problem(job, Refusal(what=f"problem {number}"))
    assert [problem.what for problem in queue.get(job.id).problems] == ["problem 0", "problem 1", "problem 2"]
