//! The conformance suite of the log port: one test for each property, run against each implementation.
//!
//! `embedded::…` always runs. `kafka::…` runs against every broker that `HEADWAY_TEST_KAFKA` names, at the same time
//! (`deploy/local up` starts some, `deploy/local env` prints the setting). Any broker of the Kafka protocol can be put in by its
//! address, as in `HEADWAY_TEST_KAFKA=redpanda=127.0.0.1:9092`.

mod groups;
mod hanging;
mod offsets;
mod outside;
mod reading;
mod records;
mod support;
mod targets;
mod topics;
mod transactions;

#[test]
fn member_process() {
    groups::member_process();
}

macro_rules! conformance {
    ($($module:ident :: $property:ident,)*) => {
        mod embedded {
            $(#[test] fn $property() { super::targets::on_embedded(super::$module::$property); })*
        }
        mod kafka {
            $(#[test] fn $property() { super::targets::on_brokers(stringify!($property), super::$module::$property); })*
        }
    };
}

conformance! {
    records::records_come_back_in_order_and_whole,
    records::a_topic_can_have_the_times_at_which_records_were_taken_in,
    records::keys_go_where_murmur2_says,
    records::records_without_a_key_are_spread,
    records::records_handed_over_together_are_as_sent_one_by_one,
    records::a_flush_counts_the_deliveries_of_each_partition,
    records::a_full_queue_is_back_pressure,
    reading::a_batch_is_never_larger_than_asked_for,
    reading::partitions_take_turns,
    reading::pause_resume_and_seek_skip_nothing,
    reading::the_end_is_reported_each_time_it_is_reached,
    reading::nothing_is_read_before_a_start_is_named,
    reading::an_unassigned_partition_is_silent,
    topics::a_topic_is_described_and_its_id_changes_when_it_is_created_again,
    topics::creating_a_topic_twice_leaves_the_first_alone,
    topics::what_is_not_there_is_said_to_be_missing,
    topics::deleted_records_are_gone_and_reading_there_is_an_error,
    topics::compaction_keeps_the_last_value_of_each_key_at_its_offset,
    topics::a_topic_can_be_given_more_partitions_and_never_fewer,
    offsets::committed_offsets_come_back_with_their_metadata,
    offsets::metadata_of_4096_bytes_fits_and_one_more_is_too_large,
    offsets::offsets_in_a_transaction_take_effect_with_it,
    offsets::committed_offsets_wait_for_the_transaction_that_holds_them,
    offsets::a_closed_reader_goes_on_where_it_committed,
    transactions::aborted_records_are_never_read,
    transactions::an_open_transaction_holds_the_last_stable_offset,
    transactions::control_records_leave_holes_and_the_end_lies_behind_them,
    transactions::a_later_producer_fences_an_earlier_one,
    transactions::a_transaction_past_its_timeout_is_aborted,
    transactions::a_transaction_over_several_topics_is_one,
    transactions::calls_out_of_turn_are_refused,
    transactions::read_process_write_is_exactly_once_through_aborts_and_restarts,
    groups::members_share_and_no_record_is_lost_when_they_join_and_leave,
    groups::a_crashed_members_partitions_move_after_its_session_timeout,
    groups::a_static_member_that_comes_back_in_time_keeps_its_partitions,
    groups::a_static_member_is_fenced_by_its_successor,
    groups::a_static_member_that_closes_for_a_moment_keeps_its_place,
    groups::a_static_member_that_leaves_gives_its_partitions_to_others_at_once,
    groups::partitions_that_came_while_a_static_member_was_away_are_given,
    groups::a_member_knows_when_its_group_has_answered,
    groups::a_revoke_is_acknowledged_only_by_unassign,
    groups::an_assignment_may_be_answered_late,
    groups::a_member_that_does_not_poll_loses_its_place_and_can_not_commit,
    groups::a_stale_generation_can_not_commit_in_a_transaction,
    groups::members_are_given_partitions_that_a_topic_gets,
    outside::members_and_their_partitions_are_listed,
    outside::offsets_are_committed_from_outside_only_while_a_group_has_no_members,
    outside::a_deleted_group_has_no_offsets_and_one_with_members_stays,
}
