/* Preloaded: the nth call that opens or changes a file fails, after `fail_call(n, error)`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

static long left;
static int as;

long calls_left(void) { return left; }
void fail_call(long n, int error) { as = error; left = n; }

static int fails(void) {
  if (left > 0 && --left == 0) { errno = as; return 1; }
  return 0;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITE(name, offset_t) \
  ssize_t name(int fd, const void *buffer, size_t size, offset_t offset) { \
    REAL(name); \
    return fails() ? -1 : real(fd, buffer, size, offset); \
  }
#define SYNC(name) \
  int name(int fd) { REAL(name); return fails() ? -1 : real(fd); }
#define TRUNCATE(name, offset_t) \
  int name(int fd, offset_t size) { \
    REAL(name); \
    return fails() ? -1 : real(fd, size); \
  }
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    return fails() ? -1 : real(path, flags, mode); \
  }

WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
SYNC(fsync)
SYNC(fdatasync)
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *buffer, size_t size) {
  REAL(write);
  return fails() ? -1 : real(fd, buffer, size);
}
