/* typed.c -- a program for a terminal that keeps what is typed into it.
 *
 *   typed raw|lines FILE [BYTES]
 *
 * raw reads single bytes, without any processing; lines reads the terminal's cooked lines. Both turn off
 * echo, print "ready" and append what they read to FILE. After BYTES bytes they print "got N" and
 * exit. With BYTES 0 nothing is read until SIGUSR1 comes. SIGINT prints "[INT]", SIGUSR2 "[N]", N being
 * the bytes read so far. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t may_read;
static volatile sig_atomic_t asked;

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		_exit(90);
}

static void on_signal(int number)
{
	int saved = errno;
	if (number == SIGUSR1)
		may_read = 1;
	else if (number == SIGUSR2)
		asked = 1;
	else
		say("[INT]");
	errno = saved;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 91;
	struct termios tio;
	if (tcgetattr(STDIN_FILENO, &tio) != 0)
		return 92;
	if (strcmp(argv[1], "raw") == 0) {
		cfmakeraw(&tio);
	} else {
		tio.c_lflag &= (tcflag_t)~ECHO;
		tio.c_iflag &= (tcflag_t) ~(ICRNL | IMAXBEL);
		tio.c_oflag &= (tcflag_t)~OPOST;
	}
	tcsetattr(STDIN_FILENO, TCSANOW, &tio);
	int file = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (file < 0)
		return 93;
	unsigned long long wanted = argc > 3 ? strtoull(argv[3], NULL, 10) : ~0ull;

	/* Signals come in ppoll() alone. */
	sigset_t blocked, open_set;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGUSR2);
	sigprocmask(SIG_BLOCK, &blocked, &open_set);
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	may_read = wanted != 0;
	if (wanted == 0)
		wanted = ~0ull;
	say("ready");

	unsigned long long got = 0;
	char text[48];
	while (got < wanted) {
		struct pollfd in = { .fd = may_read ? STDIN_FILENO : -1, .events = POLLIN };
		int n = ppoll(&in, 1, NULL, &open_set);
		if (asked) {
			asked = 0;
			snprintf(text, sizeof(text), "[%llu]", got);
			say(text);
		}
		if (n <= 0)
			continue;
		char buffer[65536];
		ssize_t size = read(STDIN_FILENO, buffer, sizeof(buffer));
		if (size <= 0)
			break;
		if (write(file, buffer, (size_t)size) != size)
			return 94;
		got += (unsigned long long)size;
	}
	snprintf(text, sizeof(text), "got %llu", got);
	say(text);
	return 0;
}
