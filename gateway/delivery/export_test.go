package delivery

// RetentionStatements are those whose plans are looked at, with the sweep of
// messages without a proof.
var RetentionStatements = []string{
	eraseLetters, eraseSpares, eraseMessages, eraseReceipts, firstLive, eraseSecrets, closeDoubts,
}

// TakePlaces is the statement of [Places].
const TakePlaces = takePlaces
