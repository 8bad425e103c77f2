// Package office is what a school's staff do at their tablet, over HTTP as JSON,
// under /api/v1/staff/: cards from issue to destruction, who is in the building,
// who came and who did not, excuses and timetables, alarms, refused cards and
// rejected events, and the news of absences that waits for a person.
//
// A request brings the key of a staff tablet (zvonok key add --kind
// staff-tablet) and, in the header Staff, who is at it: the registry's id of a
// member of staff of the same organisation. Both are asked of the database each
// time: a revoked key and somebody who has left are refused at once.
//
// The promises:
//
//   - Staff see and change what belongs to the tablet's organisation. What belongs
//     to another one is answered like what does not exist.
//   - Every look at a child's data is in the access log (D14) before it is shown,
//     under the name of who looked, and of how: a file counts as an export.
//   - Whoever did something to a card, an excuse, an alarm is on record with it.
//
// It decides nothing itself: cards are package access's, presence and attendance
// access/door's, devices access/reader's.
package office
