//! One suite of named clauses that every store has to pass, whatever is behind it.
//!
//! A clause is an async function whose name is what it claims. `conformance_suite!` makes one test
//! of each, so that a store's test binary names the broken claim. Time is moved by a
//! [`FixedClock`](celeriac_core::testing::FixedClock) and never slept; what a store cannot do it
//! skips only by a capability that its harness has named.
//!
//! ```
//! use celeriac_stores::conformance::Harness;
//!
//! mod memory {
//!     use super::*;
//!     fn harness() -> Harness {
//!         Harness::new(|resources| celeriac_stores::connect("memory://", resources).expect("memory"))
//!     }
//!     celeriac_stores::conformance_suite!(harness());
//! }
//! # fn main() {}
//! ```

#![expect(clippy::unwrap_used, reason = "a clause fails by panicking, as every test does")]

pub mod acknowledged;
pub mod admin;
pub mod chord;
pub mod control;
pub mod dead;
pub mod events;
pub mod exchange;
pub mod fetch;
mod fixture;
pub mod lease;
pub mod mailbox;
pub mod moves;
pub mod nodes;
pub mod publish;
pub mod results;
pub mod schedule;
pub mod throttle;
pub mod unique;
pub mod view;
pub mod wake;

pub use fixture::{Fixture, Harness};

/// Makes one `#[tokio::test]` of every clause; the argument is an expression that gives a
/// [`Harness`] with a fresh place for a store.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:expr) => {
        $crate::conformance_theme!($harness, publish {
            a_plan_is_written_whole
            publish_is_all_or_nothing
            an_empty_plan_changes_nothing
            depth_limit_refuses_at_the_publisher
            depth_limits_are_counted_for_each_queue
            accepted_work_is_never_refused_for_depth
            too_large_messages_are_refused
            too_large_results_are_refused
            a_message_at_its_size_limit_can_be_retried
            long_task_ids_are_refused
            every_byte_and_unknown_field_survives
            a_retry_keeps_when_its_life_began
        });
        $crate::conformance_theme!($harness, throttle {
            a_rate_spreads_a_task_and_holds_up_nobody
            a_rate_holds_for_all_workers_together
            rates_with_bursts_hold_together
            concurrency_is_counted_from_the_leases
            keys_are_limited_each_for_itself
            a_limit_sets_apart_what_waits_already
            a_queue_can_be_limited
            operators_override_applications
            a_worker_takes_no_more_of_a_task_than_it_may
            rates_survive_a_clock_that_is_set_back
            a_thousand_keys_are_served_and_forgotten
            a_limit_holds_for_suspects
            lanes_without_ready_messages_hide_nothing
            what_runs_already_counts_for_a_new_limit
            a_rate_that_many_lanes_share_holds
            a_rule_shows_what_it_counts
            a_start_counts_once_under_two_rules
        });
        $crate::conformance_theme!($harness, unique {
            a_second_message_of_a_key_is_left_out
            a_key_is_free_when_its_message_is_gone
            a_key_until_started_is_free_when_it_runs
            a_window_keeps_the_key_after_the_end
            a_retry_keeps_its_key
            no_key_outlives_its_holder
            members_of_groups_are_never_left_out
            a_second_send_of_the_same_id_is_left_out
            what_is_put_back_is_never_left_out
        });
        $crate::conformance_theme!($harness, exchange {
            a_direct_exchange_goes_by_the_key
            a_topic_exchange_goes_by_words
            each_copy_is_settled_for_itself
            a_message_without_a_queue_is_refused
            bindings_are_listed_once
            an_exchange_has_one_type
            copies_are_counted_and_scheduled_by_queue
            a_unique_message_goes_to_one_queue
            a_fanout_is_not_a_queue_that_it_cannot_be
        });
        $crate::conformance_theme!($harness, fetch {
            messages_come_in_the_order_they_were_sent
            a_fetch_takes_no_more_than_it_may
            priority_steps_go_before_queues
            queues_take_turns
            a_queue_named_twice_is_fetched_once
            two_workers_never_get_the_same_message
            scheduled_messages_become_ready_at_their_time_in_order
            a_time_that_has_passed_is_ready_at_once
            due_messages_rank_behind_what_waited
            an_unreadable_eta_is_delivered_with_its_bytes
            next_due_is_the_earliest_of_these_queues
            a_message_of_protocol_1_is_held_back_like_any_other
        });
        $crate::conformance_theme!($harness, lease {
            settle_done_removes_the_message
            settle_requeue_keeps_order
            settle_requeue_to_the_tail_goes_last
            a_release_that_began_is_redelivered_with_its_history
            a_release_that_never_began_leaves_no_trace
            a_message_whose_child_died_returns_as_a_suspect
            a_second_settlement_is_fenced
            a_fenced_settlement_writes_nothing
            settlements_of_one_call_stand_each_on_its_own
            a_refused_settlement_leaves_the_lease_standing
            a_refused_batch_writes_nothing
        });
        $crate::conformance_theme!($harness, nodes {
            a_node_is_seen_as_it_said
            a_node_is_seen_as_it_changed
            two_runs_of_one_name_stay_two
            a_dead_nodes_messages_return_in_order_with_history
            a_returning_owner_that_renews_first_keeps_everything
            a_swept_node_cannot_renew_or_settle
            a_node_that_is_not_alive_gets_nothing
            deregister_returns_everything_at_its_place
            strays_go_back_and_known_leases_stay
            suspects_come_one_at_a_time
            three_counted_deaths_make_the_poison_flag
            a_dead_node_is_remembered_for_a_day
        });
        $crate::conformance_theme!($harness, acknowledged {
            what_a_dead_node_acknowledged_does_not_run_again
            every_way_back_keeps_the_mark
            nothing_holds_what_is_lost
            its_own_worker_may_give_it_back
            what_is_lost_stays_lost
            a_mark_is_its_owners_and_stays
            a_replayed_letter_runs_without_the_mark
            an_acknowledged_task_is_seen_in_every_phase
            a_lost_message_holds_its_key
            a_lost_message_wakes_a_worker
        });
        $crate::conformance_theme!($harness, results {
            a_result_keeps_every_field
            a_final_state_is_never_overwritten
            among_unready_states_the_later_wins
            fenced_owner_cannot_store_state
            a_state_after_the_end_is_refused
            results_expire
            results_may_be_kept_for_ever
            forget_deletes_a_result
            results_are_read_together
            wait_result_returns_when_ready
            wait_result_returns_at_its_timeout
        });
        $crate::conformance_theme!($harness, dead {
            a_dead_letter_keeps_message_reason_and_history
            dead_list_pages_by_number
            dead_filters_match_every_given_part
            dead_replay_goes_exactly_once_and_forgets_the_failure
            dead_replay_begins_a_new_life
            dead_replay_can_keep_retries_and_change_the_queue
            dead_replay_takes_no_more_than_it_may
            a_full_queue_refuses_a_replay_whole
            dead_edit_replaces_the_message_and_its_names
            dead_edit_refuses_what_a_publisher_may_not_send
            dead_discard_deletes_by_number
            dead_letters_are_bounded
        });
        $crate::conformance_theme!($harness, admin {
            peek_pages_through_a_queue
            peek_shows_what_was_sent_but_nothing_that_is_held
            remove_skips_what_was_fetched_meanwhile
            removed_messages_free_their_place
        });
        $crate::conformance_theme!($harness, moves {
            what_waits_for_anything_is_held
            only_what_waits_is_held
            a_dead_mover_returns_what_it_held
            a_mover_has_to_live
            a_move_within_a_store_is_one_step
            a_key_lets_one_message_through
            a_key_can_be_forgotten
            a_key_has_its_time
        });
        $crate::conformance_theme!($harness, control {
            revoked_before_fetch_is_flagged
            an_unrevoked_task_is_not_flagged
            a_revoked_scheduled_task_is_refused_now
            revocations_are_read_by_number
            a_second_revocation_has_a_new_number
            revocations_are_forgotten_in_time
            pause_stops_fetches_and_resume_continues
            a_paused_queue_does_not_stop_its_neighbours
            pauses_keep_their_beginning
            a_pause_of_a_task_a_key_or_everything_holds
        });
        $crate::conformance_theme!($harness, events {
            events_come_back_in_order_by_number
            events_of_a_task_are_found_by_its_id
            events_are_bounded
            a_watcher_hears_events_as_they_happen
            heartbeats_do_not_push_the_history_out
        });
        $crate::conformance_theme!($harness, mailbox {
            a_request_reaches_every_node_that_listens
            who_listens_later_hears_nothing_of_before
            a_listener_is_woken_while_it_waits
            replies_come_to_the_inbox_that_asked
            a_reply_without_an_inbox_is_dropped
            asking_collects_until_nobody_answers_any_more
            asking_ends_at_its_limit
            answers_to_other_questions_are_passed_over
            what_is_too_large_is_refused
        });
        $crate::conformance_theme!($harness, view {
            an_unknown_task_is_unknown
            a_task_view_is_true_in_every_phase
            a_retry_is_seen_as_scheduled
            a_dead_task_is_seen_with_its_letter
            tasks_are_listed_by_phase
            tasks_are_listed_by_name_and_queue
            lists_are_bounded_and_newest_first
            every_task_is_on_one_page
            pages_hold_while_others_write
            a_cursor_of_nobody_is_refused
            queues_are_seen_in_numbers
            a_store_says_where_it_is_and_what_it_refuses
        });
        $crate::conformance_theme!($harness, chord {
            a_chord_fires_once_with_ordered_results_even_with_duplicate_parts
            a_chord_that_waits_in_vain_is_found
            a_chord_with_a_failed_part_reports_through_the_finisher
            a_chord_that_starts_after_its_parts_fires_too
            a_fenced_part_is_not_counted
            chords_cascade
            too_deep_a_cascade_is_refused_whole
            a_panicking_finisher_writes_nothing_and_harms_nobody
        });
        $crate::conformance_theme!($harness, schedule {
            an_entry_is_kept_as_it_was_saved
            a_write_on_another_version_is_a_conflict
            a_version_is_never_used_again
            entries_are_paged_by_name
            entries_without_a_name_or_too_large_are_refused
            due_entries_come_in_the_order_of_their_times
            a_fire_sends_notes_and_advances
            a_time_is_fired_once
            a_fire_of_a_changed_entry_writes_nothing
            fires_of_one_entry_follow_each_other
            a_fire_without_a_version_leaves_the_entry
            a_fire_may_complete_a_chord
            fires_are_not_refused_for_depth
            fires_keep_to_unique_keys
            one_beat_leads
            a_former_leader_is_fenced
            an_entrys_history_is_bounded_and_latest_first
            occurrences_go_with_age
            open_occurrences_are_found_until_they_end
            a_page_of_open_occurrences_ends_between_times
            changes_of_entries_wake_a_waiter
        });
        $crate::conformance_theme!($harness, wake {
            every_change_that_matters_wakes_a_waiter
            wait_change_returns_at_its_timeout
            a_waiter_is_woken_while_it_waits
        });
    };
}

/// One theme of `conformance_suite!`.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_theme {
    ($harness:expr, $theme:ident { $($clause:ident)* }) => {
        mod $theme {
            use super::*;
            $(
                #[tokio::test]
                async fn $clause() {
                    $crate::conformance::$theme::$clause(&$harness).await;
                }
            )*
        }
    };
}
