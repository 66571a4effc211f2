/* Copyright (c) 2026 connectomics.cave contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A preloaded library in which the wall clock is OFFSET seconds ahead, and timeouts are as long as they should be.
 * It is linked against no C library (-nostdlib), so that it runs with any, and makes plain system calls only, which the
 * sandbox of sshd allows.
 */

#define _GNU_SOURCE
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += OFFSET;
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    int result = syscall(SYS_gettimeofday, now, zone);
    if (result == 0)
        now->tv_sec += OFFSET;
    return result;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* Python 3.9 waits for its locks until a time on the wall clock, which it has asked for above. */
int sem_timedwait(sem_t *semaphore, const struct timespec *until)
{
    struct timespec real = *until;
    real.tv_sec -= OFFSET;
    return sem_clockwait(semaphore, CLOCK_REALTIME, &real);
}
