package delivery

// RetentionStatements are those whose plans are looked at.
var RetentionStatements = []string{eraseLetters, eraseSpares, eraseMessages, eraseReceipts, firstLive, eraseSecrets}
