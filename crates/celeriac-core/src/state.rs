//! Which stored state may overwrite which.
//!
//! The states and their order are Celery's (`celery/states.py` 5.7, wire specification 4.4).

use celeriac_wire::State;

/// Whether a stored result in state `current` may be replaced by one in state `next`.
///
/// A ready state never changes (Celery protects only SUCCESS, and not atomically), except that a
/// replayed dead letter turns FAILURE or REVOKED into a later outcome: the replay forgets the old
/// result first. Among unready states the later write wins.
pub fn may_overwrite(current: &State, next: &State) -> bool {
    // RECEIVED, REJECTED and IGNORED exist in events only and are never stored.
    let stored =
        !matches!(next, State::Received | State::Rejected | State::Ignored | State::Pending);
    stored && !current.is_ready()
}

/// Whether an application may set `state` itself while its task runs.
pub fn is_custom(state: &str) -> bool {
    matches!(State::parse(state), State::Custom(name) if !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let custom = State::Custom("PROGRESS".to_owned());
        let all = [
            State::Pending,
            State::Received,
            State::Started,
            State::Success,
            State::Failure,
            State::Revoked,
            State::Rejected,
            State::Retry,
            State::Ignored,
            custom.clone(),
        ];
        let ready = [State::Success, State::Failure, State::Revoked];
        let stored =
            [State::Started, State::Success, State::Failure, State::Revoked, State::Retry, custom];
        for current in &all {
            for next in &all {
                let expected = !ready.contains(current) && stored.contains(next);
                assert_eq!(may_overwrite(current, next), expected, "{current:?} -> {next:?}");
            }
        }
    }

    #[test]
    fn custom_states_are_those_celery_does_not_know() {
        for (state, custom) in
            [("PROGRESS", true), ("SUCCESS", false), ("RETRY", false), ("", false)]
        {
            assert_eq!(is_custom(state), custom, "{state}");
        }
    }
}
