/*
 * libsmpp34 as a second opinion on octets: each line of standard input is a PDU in hexadecimal, which the library takes
 * apart and puts together again; the line that comes out is what it made of it, or "error: " and its complaint.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <libsmpp34/smpp34.h>
#include <libsmpp34/smpp34_structs.h>

enum { longest_pdu = 4096 };

/* The library's largest structures hold a text and a few addresses; this holds any. */
static union {
	max_align_t aligned;
	uint8_t octets[1 << 16];
} pdu;

int main(void)
{
	static char line[2 * longest_pdu + 2];
	static uint8_t in[longest_pdu], out[longest_pdu];

	while (fgets(line, sizeof line, stdin) != NULL) {
		unsigned int octet;
		int n = 0, used = 0;

		while (n < longest_pdu && sscanf(line + 2 * n, "%2x", &octet) == 1)
			in[n++] = (uint8_t)octet;
		memset(&pdu, 0, sizeof pdu);
		if (smpp34_unpack2(&pdu, in, n) != 0 || smpp34_pack2(out, sizeof out, &used, &pdu) != 0) {
			printf("error: %d %s\n", smpp34_errno, smpp34_strerror);
			continue;
		}
		for (int i = 0; i < used; i++)
			printf("%02x", out[i]);
		printf("\n");
	}
	return 0;
}
