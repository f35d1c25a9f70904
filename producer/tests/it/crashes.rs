//! A crash, an unknown outcome or a refusal at every step of the protocol, then a restart: every row once.

use std::time::Duration;

use runtime::log::fault::{At, Fault, FaultLog};

use crate::pipeline::{HEADER, World, ids, rows};
use producer::{Source, run};

struct Case {
    world: World,
    files: Vec<std::path::PathBuf>,
}

impl Case {
    fn new() -> Self {
        let world = World::new();
        let files = vec![
            world.file("a.csv", &format!("{HEADER}{}", rows(0, 5, &[3]))),
            world.file("b.csv", &format!("{HEADER}{}", rows(5, 9, &[5]))),
        ];
        Self { world, files }
    }

    fn assert_sent(&self) {
        let good = ids((0..9).filter(|number| ![3, 5].contains(number)));
        self.world.assert_sent(
            &good,
            &[(self.files[0].clone(), 5), (self.files[1].clone(), 2)],
        );
    }
}

#[test]
fn whatever_fails_at_whichever_step_every_row_is_sent_once() {
    let clean = Case::new();
    let log = FaultLog::new(clean.world.log.clone());
    let summary = run(clean
        .world
        .options_on(log.clone(), Source::Files(clean.files.clone())))
    .unwrap();
    assert!(summary.finished);
    assert_eq!(
        (summary.read, summary.rejected, summary.delivered),
        (9, 2, 7)
    );
    clean.assert_sent();
    let steps = log.steps();
    eprintln!("{steps} steps: {:?}", log.trace());
    let faults = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::UnknownButDone,
        Fault::UnknownAndNotDone,
        Fault::Unreachable,
        Fault::MustAbort,
        Fault::TimedOut,
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                for step in 0..steps {
                    let case = Case::new();
                    let log = FaultLog::with_fault(case.world.log.clone(), At::Step(step), fault);
                    let crashes = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
                    let mut options = case
                        .world
                        .options_on(log.clone(), Source::Files(case.files.clone()));
                    options.transaction_timeout = Duration::from_millis(300);
                    match run(options) {
                        Ok(summary) => {
                            assert!(!crashes, "{fault:?} at step {step}");
                            assert!(summary.finished);
                            case.assert_sent();
                        }
                        Err(error) => assert!(
                            crashes,
                            "{fault:?} at step {step} ({}): {error:?}",
                            log.trace()[step as usize]
                        ),
                    }
                    let again = run(case.world.options(&case.files)).unwrap();
                    assert!(again.finished);
                    assert_eq!(
                        (again.read, again.rejected, again.delivered),
                        (9, 2, 7),
                        "{fault:?} at step {step}"
                    );
                    if !crashes {
                        assert_eq!(again.read_now, 0, "{fault:?} at step {step}");
                    }
                    case.assert_sent();
                }
            });
        }
    });
}

#[test]
fn crashes_at_two_steps_lose_and_double_nothing() {
    for first in [3, 9, 14] {
        for second in [2, 5, 12] {
            let case = Case::new();
            for step in [first, second] {
                let log =
                    FaultLog::with_fault(case.world.log.clone(), At::Step(step), Fault::CrashAfter);
                run(case
                    .world
                    .options_on(log, Source::Files(case.files.clone())))
                .unwrap_err();
            }
            assert!(run(case.world.options(&case.files)).unwrap().finished);
            case.assert_sent();
        }
    }
}
