//go:build !race

package ussd

const raceDetector = false
