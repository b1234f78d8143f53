/* A disk that fails: after `left` more of one operation below a folder, it and all that follow give EIO.
   Preloaded (LD_PRELOAD); `fail_on` arms it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <unistd.h>

static char operation[16], folder[PATH_MAX];
static long left = -1;

void fail_on(const char *what, const char *where, long after) {
  snprintf(operation, sizeof operation, "%s", what);
  snprintf(folder, sizeof folder, "%s", where);
  left = after;
}

static int fails(const char *what, const char *path) {
  char whole[2 * PATH_MAX] = ""; /* the folder is absolute */
  if (left < 0 || strcmp(what, operation)) return 0;
  if (*path != '/' && getcwd(whole, PATH_MAX)) strcat(whole, "/");
  strncat(whole, path, PATH_MAX - 1);
  if (strncmp(whole, folder, strlen(folder))) return 0;
  if (left > 0) return left--, 0;
  errno = EIO;
  return 1;
}

static int fails_at(const char *what, int file) {
  char link[64], path[PATH_MAX];
  if (left < 0 || strcmp(what, operation)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return fails(what, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int f, const void *b, size_t n) { REAL(write); return fails_at("write", f) ? -1 : real(f, b, n); }
ssize_t pwrite(int f, const void *b, size_t n, off_t o) { REAL(pwrite); return fails_at("write", f) ? -1 : real(f, b, n, o); }
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o) { REAL(pwrite64); return fails_at("write", f) ? -1 : real(f, b, n, o); }
ssize_t sendfile(int f, int g, off_t *o, size_t n) { REAL(sendfile); return fails_at("write", f) || fails_at("read", g) ? -1 : real(f, g, o, n); }
ssize_t sendfile64(int f, int g, off64_t *o, size_t n) { REAL(sendfile64); return fails_at("write", f) || fails_at("read", g) ? -1 : real(f, g, o, n); }
ssize_t read(int f, void *b, size_t n) { REAL(read); return fails_at("read", f) ? -1 : real(f, b, n); }
ssize_t pread(int f, void *b, size_t n, off_t o) { REAL(pread); return fails_at("read", f) ? -1 : real(f, b, n, o); }
ssize_t pread64(int f, void *b, size_t n, off64_t o) { REAL(pread64); return fails_at("read", f) ? -1 : real(f, b, n, o); }
int rename(const char *a, const char *b) { REAL(rename); return fails("rename", b) ? -1 : real(a, b); }
int mkdir(const char *a, mode_t m) { REAL(mkdir); return fails("mkdir", a) ? -1 : real(a, m); }
