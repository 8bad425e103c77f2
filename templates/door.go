package templates

// Refusal is what a controller shows at a door that stays shut, in Russian; why
// is the reason of a decision. A reason without words of its own says only that
// the way is shut.
func Refusal(why string) string {
	if text, ok := refusals[why]; ok {
		return text
	}
	return "Проход закрыт"
}

var refusals = map[string]string{
	"unknown_card":        "Карта неизвестна",
	"card_blocked":        "Карта заблокирована",
	"card_expired":        "Срок карты истёк",
	"card_inactive":       "Карта не выдана",
	"companion_alone":     "Нужна карта ребёнка",
	"companion_required":  "Выход только с сопровождающим",
	"companion_unlisted":  "Сопровождающего нет в списке",
	"companion_too_young": "Сопровождающий слишком молод",
}
