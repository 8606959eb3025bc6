/* A quota on one folder, for a program whose libc calls come here first (LD_PRELOAD).
 *
 * FOLDER = the folder; LIMIT = a file that holds how many bytes its files may have together. What would make them larger
 * ends with EDQUOT, as on file systems with quotas: write, truncate and allocate.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long long used(const char *folder) {
  long long sum = 0;
  struct stat found;
  struct dirent *entry;
  DIR *all = opendir(folder);
  if (!all) return 0;
  while ((entry = readdir(all)))
    if (!fstatat(dirfd(all), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) && S_ISREG(found.st_mode)) sum += found.st_size;
  closedir(all);
  return sum;
}

static int denied(int file, off64_t end) {
  const char *folder = getenv("FOLDER"), *limit = getenv("LIMIT");
  char link[64], path[4096];
  struct stat now;
  long long most;
  FILE *said;
  ssize_t length;
  if (!folder || !limit) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder)) || fstat(file, &now) || end <= now.st_size) return 0;
  if (!(said = fopen(limit, "r"))) return 0;
  if (fscanf(said, "%lld", &most) != 1) most = -1;
  fclose(said);
  return most >= 0 && used(folder) + (end - now.st_size) > most;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
  REAL(pwrite64);
  if (!denied(file, at + size)) return real(file, data, size, at);
  errno = EDQUOT;
  return -1;
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { return pwrite64(file, data, size, at); }

int ftruncate64(int file, off64_t size) {
  REAL(ftruncate64);
  if (!denied(file, size)) return real(file, size);
  errno = EDQUOT;
  return -1;
}

int posix_fallocate64(int file, off64_t at, off64_t size) {
  REAL(posix_fallocate64);
  return denied(file, at + size) ? EDQUOT : real(file, at, size);
}
int posix_fallocate(int file, off_t at, off_t size) { return posix_fallocate64(file, at, size); }
