/* child.c -- see child.h. */
#include "agent/child.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "wire/pty_frame.h"

bool child_ended(const struct child *c, uint8_t *kind, uint8_t *value)
{
	siginfo_t info = { 0 };
	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
	    info.si_pid == 0)
		return false;
	*kind = info.si_code == CLD_EXITED ? PTY2_EXITED : PTY2_SIGNALED_EXIT;
	*value = (uint8_t)info.si_status;
	return true;
}

static pid_t front_group(int master)
{
	pid_t group = -1;
	if (master < 0 || ioctl(master, TIOCGPGRP, &group) != 0)
		return -1;
	return group;
}

void child_signal(const struct child *c, int master, int number)
{
	pid_t front = front_group(master);
	if (front > 0 && front != c->pid)
		(void)kill(-front, number);
	if (!c->reaped && kill(-c->pid, number) != 0)
		(void)kill(c->pid, number); /* not yet a group of its own */
}

int child_signal_front(int master, int number)
{
	if (number < 1 || number > SIGRTMAX)
		return EINVAL;
	pid_t front = front_group(master);
	if (front <= 0)
		return ESRCH;
	return kill(-front, number) == 0 ? 0 : errno;
}

void child_reap(struct child *c)
{
	if (!c->reaped)
		(void)waitpid(c->pid, NULL, 0);
	c->reaped = true;
}
