"""Each statement of ARCHITECTURE.md that could turn untrue is held by a test: this list says by which."""

from __future__ import annotations

import pytest

from tests.end_to_end.pipeline import PROJECT

STAGES, STORAGE, CORE = "tests/tasks/stages", "tests/tasks/storage", "tests/cures_core"
STATEMENTS = {
    "Dependencies point downwards only": "pyproject.toml::flows -> tasks -> cures_core, never back",
    "do not know each other": "pyproject.toml::rollout, training and rewards do not know each other",
    "`epoch.py`, one page, joins them": (
        f"{CORE}/test_epoch.py::test_a_step_calls_each_part_once_a_round_and_then_updates"
    ),
    "import no torch": f"{CORE}/curriculum/test_library.py::test_importing_it_is_quick_and_loads_nothing_heavy",
    "`train` what jobs import": "tests/infra/test_installs.py::test_what_a_job_imports_is_in_the_slice_train",
    "A stage computes its key from what it reads": (
        f"{STAGES}/test_keys.py::test_a_setting_changes_the_keys_of_the_stages_that_read_it"
    ),
    "names of runs": f"{STAGES}/test_keys.py::test_a_run_is_named_after_what_decides_results",
    "what `--resume` may change": (
        "tests/tasks/runs/test_resume.py::test_operations_and_placements_change_under_a_run_and_are_noted"
    ),
    "what comparisons show": "tests/tasks/runs/test_compare.py::test_settings_that_differ_are_shown_by_their_mark",
    "the stage shows as `Cached`": (
        f"{STAGES}/test_as_stage.py::test_in_a_task_a_committed_record_is_a_state_named_cached"
    ),
    "a scratch folder of its own that survives a crash": (
        f"{STAGES}/test_workspace.py::test_the_next_holder_goes_on_in_the_latest_folder_and_older_ones_go"
    ),
    "puts the record last, under the run's lease": f"{STAGES}/test_stage.py::test_a_failure_anywhere_leaves_old_or_new",
    "Another run that needs the same stage waits and takes the record": (
        f"{STAGES}/test_at_once.py::test_twenty_starts_of_four_runs_that_share_a_stage"
    ),
    "Prefect's own state is a view of this": (
        f"{STAGES}/test_as_stage.py::test_a_stage_is_a_task_that_keeps_nothing_of_its_own"
    ),
    "has a model for each stage": "tests/tasks/runs/test_old_files.py::test_every_stage_has_figures_here",
    "needs no server, and writes nothing": "tests/end_to_end/test_run.py::test_again_it_does_no_work_and_says_so",
    "it is forked from one that has done the imports": (
        f"{STAGES}/test_job_start.py::test_jobs_come_from_one_server_each_in_its_own_process_session_and_folder"
    ),
    "and ends with the run": f"{STAGES}/test_job_start.py::test_nothing_is_left_where_the_parent_is_killed",
    "A crash there is an error of the stage, which Prefect retries": (
        "tests/faults/test_retries.py::test_what_is_retryable_is_started_three_times_and_the_rest_once"
    ),
    "a job whose parent dies ends itself": (f"{STAGES}/test_at_once.py::test_a_job_whose_parent_dies_ends_itself"),
    "SIGTERM saves a checkpoint at the next step": (
        "tests/end_to_end/test_run.py::test_sigterm_saves_the_step_and_a_second_run_goes_on"
    ),
    "their rows meet in the store": (
        "tests/end_to_end/test_run.py::test_in_shards_the_figures_are_the_same_and_a_killed_shard_is_done_again"
    ),
    "rank 0 runs `epoch.py`": (
        f"{CORE}/jobs/test_distributed_epoch.py::"
        "test_a_killed_rank_fails_the_epoch_by_name_and_the_resumed_one_ends_with_the_same_bytes"
    ),
    "the table of `cures_core/failures.py`": "tests/faults/test_failures.py::test_a_cause_ends_as_the_table_says",
    "A process that runs out of memory is not retried": (
        "tests/faults/test_failures.py::test_memory_that_runs_out_is_one_error_whoever_says_so"
    ),
    "one that the kernel killed for it is": (
        "tests/faults/test_retries.py::test_what_is_retryable_is_started_three_times_and_the_rest_once"
    ),
    "starts one of its own that ends with it": (
        "tests/flows/local/test_temporary_server.py::"
        "test_a_command_ends_with_its_server_although_log_lines_were_waiting_to_be_sent"
    ),
    "a holder that was paused past its time cannot commit": (
        f"{STORAGE}/test_lease.py::test_stopped_past_its_lease_before_any_operation_only_one_commits"
    ),
    "move a model's pointer": (
        f"{STORAGE}/test_schedules.py::test_no_run_moves_a_models_pointer_that_has_lost_its_lease"
    ),
    "that ends its job, even where the holder itself still stands still": (
        f"{STAGES}/test_at_once.py::test_the_job_of_a_holder_that_stands_still_ends_when_its_work_is_taken_over"
    ),
    "a manifest with SHA-256 after the files that it names": (
        f"{STORAGE}/test_s3.py::test_an_interrupted_publication_is_none_and_can_be_repeated"
    ),
    "what a stage builds on is read whole": (
        f"{STAGES}/test_stage.py::test_changed_bytes_are_found_before_they_are_built_on"
    ),
    "is not that of the last reading": (
        f"{STORAGE}/test_stamps.py::test_a_flipped_byte_is_told_though_sizes_and_times_are_the_same"
    ),
    "carry the SHA-256 of their content": (
        "tests/tasks/runs/test_verify.py::test_a_number_changed_in_a_value_that_still_parses_is_told"
    ),
    "Who reads changes nothing but these stamps": (
        "tests/tasks/runs/test_verify.py::test_every_damage_is_found_under_its_name_and_no_reader_changes_anything"
    ),
    "its record is set aside, not deleted": (
        f"{STAGES}/test_stage.py::test_changed_bytes_are_found_before_they_are_built_on"
    ),
    "the newest checkpoint of an unfinished epoch is there as well": (
        f"{STAGES}/test_unfinished.py::test_the_newest_one_is_sent_while_training_goes_on_and_fetched_elsewhere"
    ),
    "goes to the DVC remote first": (
        "tests/tasks/snapshots/test_publish.py::"
        "test_stopped_between_data_and_pointer_there_is_no_tag_and_a_retry_succeeds"
    ),
    "and is read back": (
        "tests/tasks/snapshots/test_publish.py::test_data_that_is_damaged_on_its_way_never_gets_a_tag"
    ),
    "in one atomic push": "tests/tasks/snapshots/test_publish.py::test_killed_at_an_instant_old_or_new",
    "Nobody's working tree is touched": (
        "tests/tasks/snapshots/test_publish.py::test_a_working_tree_and_its_index_are_left_alone"
    ),
    "Generators are seeded, and part of the saved state": (
        "tests/end_to_end/test_run.py::test_killed_in_a_job_and_in_the_flow_it_ends_with_the_same_bytes"
    ),
    "not from batching": f"{CORE}/rollout/hf/test_engine.py::test_batching_changes_no_token",
    "about 1e-5 in float32": f"{CORE}/rollout/hf/test_engine.py::test_batching_changes_no_token",
    "which is what a resumed run has": (
        "tests/end_to_end/test_run.py::test_killed_in_a_job_and_in_the_flow_it_ends_with_the_same_bytes"
    ),
    "it is among the 40 prompts drawn": "configs/quickstart.toml::prompts_per_step = 40",
    "`ask` gives a second request": (
        f"{CORE}/curriculum/test_strategies.py::test_screening_goes_on_with_what_failed_its_first_rollout"
    ),
    "the unknown one enters nothing": (
        f"{CORE}/curriculum/test_posterior.py::test_unknown_verdicts_alone_change_nothing"
    ),
    "Telling a request twice is refused": (
        f"{CORE}/curriculum/test_library.py::test_a_repeated_tell_is_refused_before_and_after_it_was_counted"
    ),
    "the checkpoint of step 20": "configs/quickstart.toml::checkpoint_every = 10",
    "its counts fade by 0.97 a step": (
        f"{CORE}/curriculum/test_posterior.py::"
        "test_by_default_counts_fade_by_0_97_and_the_prior_is_worth_three_rollouts"
    ),
    "the old counts go to the archive and come back with the text": (
        f"{CORE}/curriculum/test_posterior.py::test_a_changed_set_keeps_what_is_known_archives_what_left_and_takes_it_back"
    ),
    "by default with a fixed strength": (
        f"{CORE}/curriculum/test_posterior.py::"
        "test_by_default_counts_fade_by_0_97_and_the_prior_is_worth_three_rollouts"
    ),
    "is fitted for reports alone": f"{CORE}/curriculum/test_posterior.py::test_the_fitted_prior_is_that_of_the_data",
    "learned positions (GPT-2)": (f"{CORE}/policy/test_warm_start.py::test_a_lesson_brings_its_symbols_and_its_room"),
}


def _flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_stands_there_and_its_test_exists(statement: str) -> None:
    assert statement in _flat((PROJECT / "ARCHITECTURE.md").read_text())
    place, _, name = STATEMENTS[statement].partition("::")
    text = (PROJECT / place).read_text()
    assert (name if place.endswith(".toml") else f"def {name}(") in text


def test_no_part_of_what_stages_rest_on_is_without_a_statement() -> None:
    text = (PROJECT / "ARCHITECTURE.md").read_text()
    parts = text[text.index("- **Processes") : text.index("## The walk")].split("\n- **")
    assert [part[:40] for part in parts if not any(statement in _flat(part) for statement in STATEMENTS)] == []
