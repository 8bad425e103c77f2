// Package door records who passed which door when, and answers who is in the
// building, who came and who did not.
//
// A [Tap] is a passage as a device tells it: late, repeated and in any order.
// [Recorder.Record] turns a batch of taps into rows of door.pass, folds them
// into door.presence and inserts one [Passed] job, all in the caller's
// transaction and set-based:
//
//  1. The presence rows of the people concerned are locked in the order of
//     their ids. They tell each person's latest pass.
//  2. The taps of each person are placed into that person's line of passes. A
//     tap later than everything before it needs no look at the past; for others
//     the neighbours within a minute are read, in one query for the batch.
//  3. A pass whose predecessor has the same direction and is less than the
//     organisation's same_pass (60 seconds) older belongs to the same passage:
//     it is recorded as merged and nobody hears of it (D8).
//  4. Passes are inserted, neighbours whose predecessor changed are corrected,
//     presence is written, the job is inserted.
//
// The promises:
//
//   - The final state depends on the set of taps only: any shuffle and any split
//     into batches ends with the same passes, the same merging and the same
//     presence. Repetitions are stopped before this package, by the gate of
//     access/reader (one event id per device and sequence number).
//   - A fact and the job that tells of it are one transaction.
//   - A passage is announced once. When a late tap changes what has been told
//     already, only what is new is announced.
//   - No exit is invented. A day is closed by the rule of reading it (close_at,
//     22:00): an entry without an exit is then shown as incomplete (D8).
//   - A kindergarten child who goes out without a listed companion is recorded,
//     because it happened, and raises an alarm (D10).
package door
