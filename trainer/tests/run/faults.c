/* What a test lets a process suffer: a signal or an error of the system at a chosen call that changes the
   disk, or when the process says something on stderr. Loaded before the C library (ld.so(8), LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long calls, at, last;
static int sign, error, times;
static const char *said, *count;
/* From now on no allocation of so many bytes or more succeeds; `scarce` waits for what is said. */
static volatile size_t refused = -1;
static size_t scarce;

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
  /* Whoever started the tests may have had it ignored (`nohup`), and the program keeps to that. */
  if (!getenv("FAULT_KEEPS_HUP"))
    signal(SIGHUP, SIG_DFL);
  at = number("FAULT_AT");
  /* An error may go on: a disk that is full stays so. */
  last = number("FAULT_STAYS") ? 1L << 60 : at;
  sign = (int)number("FAULT_SIGNAL");
  error = (int)number("FAULT_ERROR");
  times = (int)number("FAULT_TIMES");
  said = getenv("FAULT_SAID");
  count = getenv("FAULT_COUNT");
  scarce = (size_t)number("FAULT_MEMORY");
}

__attribute__((destructor)) static void end(void) {
  FILE *file = count ? fopen(count, "w") : NULL;
  if (file) {
    fprintf(file, "%ld", calls);
    fclose(file);
  }
}

/* Whether this call fails; a signal comes before it is made. */
static int strikes(void) {
  long call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (said || !at || call < at || call > last) return 0;
  if (sign) raise(sign);
  errno = error;
  return error != 0;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int file, const void *bytes, size_t length) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (file > 2 && strikes()) return -1;
  ssize_t written = real(file, bytes, length);
  /* An object of JSON is looked for in files, too: a line of the metrics. */
  if (said && (file == 2 || *said == '{') && memmem(bytes, length, said, strlen(said))) {
    said = NULL;
    if (scarce) refused = scarce;
    else if (error) at = last = __atomic_load_n(&calls, __ATOMIC_SEQ_CST) + 1;
    else
      for (int i = 0; i < times; i++) raise(sign);
  }
  return written;
}

int open64(const char *path, int flags, ...) {
  REAL(int, "open64", const char *, int, ...);
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return flags & O_CREAT && strikes() ? -1 : real(path, flags, mode);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t place) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  return strikes() ? -1 : real(file, bytes, length, place);
}

int fsync(int file) {
  REAL(int, "fsync", int);
  return strikes() ? -1 : real(file);
}

int fdatasync(int file) {
  REAL(int, "fdatasync", int);
  return strikes() ? -1 : real(file);
}

int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  return strikes() ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL(int, "mkdir", const char *, mode_t);
  return strikes() ? -1 : real(path, mode);
}

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  return strikes() ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  return strikes() ? -1 : real(folder, path, flags);
}

/* Of the C library, beneath the names that are taken here. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static int none(size_t size) { return size >= refused ? (errno = ENOMEM, 1) : 0; }

void *malloc(size_t size) { return none(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
  return none(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) { return none(size) ? NULL : __libc_realloc(block, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
  if (none(size)) return ENOMEM;
  *block = __libc_memalign(alignment, size);
  return *block ? 0 : ENOMEM;
}
