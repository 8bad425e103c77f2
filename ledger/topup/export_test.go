package topup

// Signature makes the hash of a query as a partner would.
func Signature(query, secret string) string {
	ps, err := parseParameters(query)
	if err != nil {
		panic(err)
	}
	return signature(ps, secret)
}
